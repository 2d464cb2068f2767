"""Private data in documents of many texts: what is found in one of them is known in all. Knows no files, no rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject, Message
from tuneloop.core.plugins import did_you_mean
from tuneloop.guard import pii
from tuneloop.guard.pii import Found
from tuneloop.guard.rules import RULES, Strength

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DIGEST = re.compile("(?![0-9]*$)[0-9a-f]{16}")
OWN = frozenset(("id", "kept", "row"))
"""Keys whose values tuneloop may have made."""
_MOST_ROWS = 10**7  # a number below is no phone number either

# In lines of JSON, by the regular expressions of Rust.
_OWN_IN_LINE = r'[{,]"(?:(?:id|kept)":"[0-9a-f]{16}"|row":[0-9]{1,7}[,}])'
_PLAINLY = ((r"\"", "\1"), ('":', ": "), ("\1", '"'), (r"\n", "\n"), (r"\t", "\t"))
"""What is written in place of what, one after the other, so that texts stand there as they are, behind their keys."""
_UNSURE = r'\\[^"nt]|"(?:id|kept)":"[0-9]{16}"|[:,\[]-?[0-9][0-9.]*e'
"""Other escapes, digests without a letter, which may be numbers of cards, and numbers without all their digits."""


def _known(kinds: list[str] | None) -> list[str] | None:
    known = RULES.names()
    for kind in kinds or ():
        if kind not in known:
            raise ValueError(f"no kind '{kind}'{did_you_mean(kind, known)}; kinds: {', '.join(known)}")
    if kinds == []:
        raise ValueError("an empty list finds nothing; leave `kinds` out for all kinds")
    return kinds


Kinds = Annotated[list[str] | None, AfterValidator(_known)]
"""Names of rules, as an option; None is all of them."""


class Rewriting:
    """One pass over the texts of a document: finds, and writes something else in their place.

    write: the text with its finds replaced. known: finds of an earlier pass, whose values are found here too.
    """

    def __init__(
        self,
        kinds: Collection[str] | None,
        strength: Strength,
        write: Callable[[str, list[Found]], str] = pii.mask,
        known: Collection[Found] = (),
    ) -> None:
        self._kinds, self._write, self.known = kinds, write, known
        self._strength: Strength = strength
        self.found: list[tuple[str, Found]] = []
        self.place = ""
        """Where in the document the next texts stand; told beside each find."""

    def message(self, place: str, message: Message) -> Message:
        """A message with content, reasoning and arguments rewritten; the same object where nothing is found."""
        before = len(self.found)
        self.place = place
        content = self.text(message.content)
        reasoning = self.text(message.reasoning) if message.reasoning else message.reasoning
        calls = tuple(replace(call, arguments=self.value(call.arguments)) for call in message.tool_calls)
        if len(self.found) == before:
            return message
        return replace(message, content=content, reasoning=reasoning, tool_calls=calls)

    def value(self, value: Any, key: str = "") -> Any:
        """A JSON value with its texts and whole numbers rewritten. The key says what the value is: `phone: …`."""
        if is_own(value, key):
            return value
        if isinstance(value, str):
            return self.text(value, key)
        if isinstance(value, dict):
            return self.object(value)
        if isinstance(value, list):
            return [self.value(one, key) for one in value]
        whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0  # not nan, not inf
        if not whole:
            return value
        before = len(self.found)
        text = self.text(str(int(value)), key)
        if len(self.found) == before:
            return value
        return int(text) if text.isdigit() and text[0] != "0" else text

    def object(self, value: JsonObject) -> JsonObject:
        """An object of any shape with all its texts, keys and whole numbers rewritten."""
        out: JsonObject = {}
        for key, one in value.items():
            new = self.text(str(key))
            while new in out:  # two keys with one mask stay two
                new += "_"
            out[new] = self.value(one, str(key))
        return out

    def text(self, text: str, key: str = "") -> str:
        """A text rewritten; the key in front of it says what it is."""
        front = f"{key}: " if key else ""
        found = pii.find(front + text, self._kinds, self._strength, self.known)
        if not found:
            return text
        places = [(max(0, one.start - len(front)), one.end - len(front), one) for one in found]
        inside = [replace(one, start=start, end=end, text=text[start:end]) for start, end, one in places if end > 0]
        self.found += [(self.place, one) for one in inside]
        return self._write(text, inside)


def may_hold_lines(lines: Sequence[bytes], strength: Strength) -> NDArray[np.bool_]:
    """Whether a `Rewriting` may find something in the object of each line, which `jsonl.dump` wrote; False for most,
    and at a tenth of the price of parsing them.

    Where that is not sure, it may.
    """
    import numpy as np
    import polars as pl

    whole = pl.Series(lines, dtype=pl.Binary).cast(pl.String)
    texts = whole.str.replace_all(_OWN_IN_LINE, " ")
    for written, meant in _PLAINLY:
        texts = texts.str.replace_all(written, meant, literal=True)
    odd = whole.str.contains(_UNSURE).to_numpy() | np.array([jsonl.is_spaced(line) for line in lines], bool)
    return odd | pii.may_hold_each(texts.to_list(), strength)


def texts_of(message: Message) -> list[str]:
    """Everything of a message that is searched, in no form that matters: for one look at it all with `may_hold`."""
    reasoning = [message.reasoning] if message.reasoning else []
    return [message.content, *reasoning, *(repr(call.arguments) for call in message.tool_calls)]


def is_own(value: Any, key: str) -> bool:
    """Whether a value is a row's digest or its number, which tuneloop made."""
    if key not in OWN:
        return False
    if key == "row":
        return isinstance(value, int) and value < _MOST_ROWS
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))
