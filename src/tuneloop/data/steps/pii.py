"""Step `pii`: masks personal data and secrets, puts surrogates in their place, or drops the rows that hold them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import field_validator

from tuneloop.core.conversation import Example, JsonObject, Message
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.guard import digits, pii
from tuneloop.guard.pii import Found
from tuneloop.guard.rules import RULES, Strength
from tuneloop.guard.surrogates import Surrogates

KEY = "TUNELOOP_PII_KEY"
"""The environment variable with the secret from which the shift of a row's dates is made."""
_SHOWN = 20
_DIGEST = re.compile("(?![0-9]*$)[0-9a-f]{16}")
_MOST_ROWS = 10**7  # a number below is no phone number either
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
    kinds: list[str] | None = None
    """Only these kinds, e.g. [phone, email, cn_id]; all if not given. `tuneloop list rules` lists them."""
    strength: Strength = "strong"
    """strong: what form, check digit, valid range or a word in front confirm. weak: hints too, such as names after a
    title, addresses, dates and passwords; many of them are harmless."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: list[str] | None) -> list[str] | None:
        known = RULES.names()
        for kind in kinds or ():
            if kind not in known:
                raise ValueError(f"no kind '{kind}'{did_you_mean(kind, known)}; kinds: {', '.join(known)}")
        if kinds == []:
            raise ValueError("an empty list finds nothing; leave `kinds` out for all kinds")
        return kinds

    def look_all(self, examples: Sequence[Example]) -> Sequence[Example | Rejection]:
        import numpy as np

        texts = [_texts(example) for example in examples]
        starts = np.cumsum([0, *map(len, texts)])
        doubtful = np.flatnonzero(pii.may_hold_each([text for one in texts for text in one], self.strength))
        rows = np.searchsorted(starts, doubtful, "right") - 1
        out: list[Example | Rejection] = list(examples)
        for row, number in zip(rows.tolist(), (doubtful - starts[rows]).tolist(), strict=True):
            example = examples[row]
            is_content = number < len(example.messages) + len(example.rejected)
            if not is_content or pii.find(texts[row][number], self.kinds, self.strength):
                out[row] = self.look(example)
        return out

    def look(self, example: Example) -> Example | Rejection:
        first = _Pass(self, pii.mask)
        first.over(example)
        if not first.found:
            return example
        second = _Pass(self, pii.mask, [one for _, one in first.found])
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
        first = _Pass(self, pii.mask)
        first.over_json(value)
        return _Pass(self, pii.mask, [one for _, one in first.found]).over_json(value) if first.found else value

    def redact_all(self, values: Sequence[JsonObject]) -> Sequence[JsonObject]:
        texts = ["\n".join(_lines(value, "", [])) for value in values]
        doubtful = pii.may_hold_each(texts, self.strength).tolist()
        return [self.redact(value) if doubt else value for value, doubt in zip(values, doubtful, strict=True)]


def _lines(value: JsonObject | list[Any], key: str, found: list[str]) -> list[str]:
    """Everything that is searched in a JSON value, each text behind its key."""
    for inner, one in value.items() if isinstance(value, dict) else [(key, one) for one in value]:
        if isinstance(one, (dict, list)):
            found.append(str(inner))
            _lines(one, str(inner), found)
        elif isinstance(one, float) and one % 1:
            found.append(str(inner))  # no number of anything
        elif not _is_own(one, inner):
            found.append(f"{inner}: {one}")
    return found


def _is_own(value: Any, key: str) -> bool:
    """Whether a value is a row's digest or its number, which tuneloop made."""
    if key == "row":
        return isinstance(value, int) and value < _MOST_ROWS
    return key in ("id", "kept") and isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _texts(example: Example) -> list[str]:
    """Everything that is searched: all contents, then the rest in no form that matters, for one look at many rows."""
    messages = (*example.messages, *example.rejected)
    parts = [message.content for message in messages]
    for message in messages:
        if message.reasoning:
            parts.append(message.reasoning)
        if message.tool_calls:
            parts += [repr(call.arguments) for call in message.tool_calls]
    if example.meta:
        parts.append(repr(example.meta))
    return parts


def _without_dates(invented: Surrogates, text: str, found: Sequence[Found]) -> str:
    """Surrogates, but dates masked: without a secret everybody could compute their shift."""
    instead = [pii.mask(one.text, [replace(one, start=0, end=len(one.text))]) if one.kind == "date"
               else invented.instead(one) for one in found]  # fmt: skip
    return invented.checked(text, found, instead)


class _Pass:
    """One pass over the texts of a row: finds, and writes something else in their place."""

    def __init__(self, step: Pii, write: Callable[[str, list[Found]], str], known: Collection[Found] = ()) -> None:
        self.step, self.write, self.known = step, write, known
        self.found: list[tuple[str, Found]] = []
        self._place = ""

    def over(self, example: Example) -> Example:
        """The Example with all texts rewritten; the same object where nothing is found."""
        messages = tuple(self._message(f"messages[{number}]", one) for number, one in enumerate(example.messages))
        rejected = tuple(self._message(f"rejected[{number}]", one) for number, one in enumerate(example.rejected))
        self._place = "meta"
        meta = {key: value if key in _LEFT_ALONE else self._value(value, key) for key, value in example.meta.items()}
        return replace(example, messages=messages, meta=meta, rejected=rejected) if self.found else example

    def over_json(self, value: JsonObject) -> JsonObject:
        """An object of any shape with all its texts, keys and whole numbers rewritten."""
        return self._object(value)

    def _message(self, place: str, message: Message) -> Message:
        before = len(self.found)
        self._place = place
        content = self._text(message.content)
        reasoning = self._text(message.reasoning) if message.reasoning else message.reasoning
        calls = tuple(replace(call, arguments=self._value(call.arguments)) for call in message.tool_calls)
        if len(self.found) == before:
            return message
        return replace(message, content=content, reasoning=reasoning, tool_calls=calls)

    def _value(self, value: Any, key: str = "") -> Any:
        """A JSON value with its texts and whole numbers rewritten. The key says what the value is: `phone: …`."""
        if _is_own(value, key):
            return value
        if isinstance(value, str):
            return self._text(value, key)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            return [self._value(one, key) for one in value]
        whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0  # not nan, not inf
        if not whole:
            return value
        before = len(self.found)
        text = self._text(str(int(value)), key)
        if len(self.found) == before:
            return value
        return int(text) if text.isdigit() and text[0] != "0" else text

    def _object(self, value: JsonObject) -> JsonObject:
        out: JsonObject = {}
        for key, one in value.items():
            new = self._text(str(key))
            while new in out:  # two keys with one mask stay two
                new += "_"
            out[new] = self._value(one, str(key))
        return out

    def _text(self, text: str, key: str = "") -> str:
        front = f"{key}: " if key else ""
        found = pii.find(front + text, self.step.kinds, self.step.strength, self.known)
        if not found:
            return text
        places = [(max(0, one.start - len(front)), one.end - len(front), one) for one in found]
        inside = [replace(one, start=start, end=end, text=text[start:end]) for start, end, one in places if end > 0]
        self.found += [(self._place, one) for one in inside]
        return self.write(text, inside)
