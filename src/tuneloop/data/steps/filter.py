"""Step `filter`: keeps the rows for which an expression holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from tuneloop.core.conversation import Example
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.texts.expressions import ExpressionError, checked, compile_expression


class Filter(RowStep):
    """Keeps the rows for which an expression is true. A row for which it has no value leaves with the error.

    Names: prompt (the last question), answer, messages, meta (columns: meta.score, meta["odd name"],
    meta.get("score")), label, language, source, row. Functions: words, characters, len, lower, matches(pattern, text),
    number, text. And as in Python: and, or, not, in, if … else, comparisons, arithmetic, methods of texts.
    """

    keep: Annotated[str, AfterValidator(checked)]
    """The expression, e.g. words(answer) >= 3 and label in ["faq", "billing"]."""

    def look(self, example: Example) -> Example | Rejection:
        expression = compile_expression(self.keep)
        try:
            holds = expression.value(example)
        except ExpressionError as error:
            return Rejection(f"{self.keep}: cannot be evaluated", {"error": str(error), **expression.shown(example)})
        return example if holds else Rejection(f"not {self.keep}", expression.shown(example))
