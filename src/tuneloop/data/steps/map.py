"""Step `map`: writes the question, the answer or columns anew, from expressions."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from tuneloop.core.conversation import Example, Message
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.texts.expression_values import question
from tuneloop.texts.expressions import ExpressionError, checked, compile_expression

TARGETS = ("prompt", "answer", "meta")


class Map(RowStep):
    """Sets parts of each row to the values of expressions, all of which see the row as it was.

    What expressions can say: see `filter`. A row for which one has no value, or no text where a text is needed, leaves
    with the error.
    """

    set: dict[str, Annotated[str, AfterValidator(checked)]] = Field(min_length=1)
    """What to set: prompt (the last question), answer or meta.<column>; null removes a column. E.g. {answer:
    answer.strip(), meta.label: lower(meta.topic)}."""

    @field_validator("set")
    @classmethod
    def _known_targets(cls, value: dict[str, str]) -> dict[str, str]:
        for target in value:
            if target not in ("prompt", "answer") and not (target.startswith("meta.") and target != "meta."):
                hint = f" (did you mean 'meta.{target}'?)" if target == "label" else did_you_mean(target, TARGETS)
                raise ValueError(f"'{target}' cannot be set{hint}; write prompt, answer or meta.<column>")
        return value

    def look(self, example: Example) -> Example | Rejection:
        meta = dict(example.meta)
        messages = list(example.messages)
        for target, text in self.set.items():
            expression = compile_expression(text)
            try:
                value = expression.value(example)
                if target.startswith("meta."):
                    _put(meta, target.removeprefix("meta."), value)
                else:
                    _write(messages, target, value, example)
            except ExpressionError as error:
                reason = f"{target}: {text} cannot be evaluated"
                return Rejection(reason, {"error": str(error), **expression.shown(example)})
        return replace(example, messages=tuple(messages), meta=meta)


def _put(meta: dict[str, Any], column: str, value: Any) -> None:
    if value is None:
        meta.pop(column, None)
    else:
        meta[column] = value


def _write(messages: list[Message], target: str, value: Any, example: Example) -> None:
    number = len(example.prompt) if target == "answer" else question(example)
    if number is None:
        raise ExpressionError("the row has no question to set")
    if not isinstance(value, str):
        raise ExpressionError(f"a text is wanted, the value is {value!r:.80}; text(x) makes one of a number")
    messages[number] = replace(messages[number], content=value)
