"""Step `pii`: masks personal data and secrets, puts surrogates in their place, or drops the rows that hold them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Literal

from tuneloop.core.conversation import Example, JsonObject
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.guard import digits, pii
from tuneloop.guard.documents import Kinds, Rewriting, may_hold_lines
from tuneloop.guard.pii import Found
from tuneloop.guard.rules import Strength
from tuneloop.guard.surrogates import Surrogates

KEY = "TUNELOOP_PII_KEY"
"""The environment variable with the secret from which the shift of a row's dates is made."""
_SHOWN = 20
_LEFT_ALONE = ("annotations",)  # whose raters must stay apart: agreement is computed from them


class Pii(RowStep):
    """Finds personal data (docs/privacy.md) in content, reasoning, tool-call arguments and meta, Chinese and English.

    A value found once in a row is found in the whole row. Tool schemas and meta's `annotations` stay as they are.
    Rows that leave are masked in `dropped.jsonl`, whatever the action and whichever step dropped them.
    """

    action: Literal["mask", "surrogate", "drop"] = "mask"
    """mask: `[PHONE]` in place of the value. surrogate: an invented value of the same shape, the same for the same
    value within a row; dates are shifted if the environment variable TUNELOOP_PII_KEY holds a secret, else masked.
    drop: the row leaves."""
    kinds: Kinds = None
    """Only these kinds, e.g. [phone, email, cn_id]; all if not given. `tuneloop list rules` lists them."""
    strength: Strength = "strong"
    """strong: what form, check digit, valid range or a word in front confirm. weak: hints too, such as names after a
    title, addresses, dates and passwords; many of them are harmless."""

    def look_all(self, examples: Sequence[Example]) -> Sequence[Example | Rejection]:
        import numpy as np

        contents = [message.content for one in examples for message in (*one.messages, *one.rejected)]
        besides = [(row, text) for row, one in enumerate(examples) for text in _besides(one)]
        rows = np.repeat(np.arange(len(examples)), [len(one.messages) + len(one.rejected) for one in examples]).tolist()
        texts, rows = [*contents, *(text for _, text in besides)], [*rows, *(row for row, _ in besides)]
        out: list[Example | Rejection] = list(examples)
        for number in np.flatnonzero(pii.may_hold_each(texts, self.strength)).tolist():
            if number >= len(contents) or pii.find(texts[number], self.kinds, self.strength):
                out[rows[number]] = self.look(examples[rows[number]])
        return out

    def look(self, example: Example) -> Example | Rejection:
        first = _Pass(self)
        first.over(example)
        if not first.found:
            return example
        second = _Pass(self, known=[one for _, one in first.found])
        masked = second.over(example)
        if self.action == "drop":
            shown = [{"where": place, "kind": one.kind, "strength": one.strength, "shape": digits.shape(one.text)}
                     for place, one in second.found]  # fmt: skip
            return Rejection("holds personal data", {"count": len(shown), "found": shown[:_SHOWN]})
        if self.action == "mask":
            return masked
        # the seed says nothing of the values: whoever has the result could make it, and learns nothing from it
        invented = Surrogates(masked.id, key := os.environ.get(KEY, ""))
        write = invented.replace if key else lambda text, found: _without_dates(invented, text, found)
        return _Pass(self, write, second.known).over(example)

    def redact(self, value: JsonObject) -> JsonObject:
        first = _Pass(self)
        first.object(value)
        return _Pass(self, known=[one for _, one in first.found]).object(value) if first.found else value

    def may_redact(self, lines: Sequence[bytes]) -> Sequence[bool]:
        return may_hold_lines(lines, self.strength).tolist()


def _besides(example: Example) -> list[str]:
    """Everything but contents that is searched, in no form that matters: for one look at many rows."""
    parts = [repr(example.meta)] if example.meta else []
    for message in (*example.messages, *example.rejected):
        if message.reasoning:
            parts.append(message.reasoning)
        if message.tool_calls:
            parts += [repr(call.arguments) for call in message.tool_calls]
    return parts


def _without_dates(invented: Surrogates, text: str, found: Sequence[Found]) -> str:
    """Surrogates, but dates masked: without a secret everybody could compute their shift."""
    instead = [pii.mask(one.text, [replace(one, start=0, end=len(one.text))]) if one.kind == "date"
               else invented.instead(one) for one in found]  # fmt: skip
    return invented.checked(text, found, instead)


class _Pass(Rewriting):
    """One pass over the texts of a row."""

    def __init__(
        self, step: Pii, write: Callable[[str, list[Found]], str] = pii.mask, known: Collection[Found] = ()
    ) -> None:
        super().__init__(step.kinds, step.strength, write, known)

    def over(self, example: Example) -> Example:
        """The Example with all texts rewritten; the same object where nothing is found."""
        messages = tuple(self.message(f"messages[{number}]", one) for number, one in enumerate(example.messages))
        rejected = tuple(self.message(f"rejected[{number}]", one) for number, one in enumerate(example.rejected))
        self.place = "meta"
        meta = {key: value if key in _LEFT_ALONE else self.value(value, key) for key, value in example.meta.items()}
        return replace(example, messages=messages, meta=meta, rejected=rejected) if self.found else example
