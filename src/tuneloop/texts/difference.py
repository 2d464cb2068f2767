"""What two texts have in common and what not: by words, in Chinese and Japanese by characters."""

from __future__ import annotations

import difflib
import re
from typing import Literal

from tuneloop.texts.words import CJK

Kind = Literal["same", "first", "second"]
"""In both texts, only in the first, only in the second."""
LONGEST = 600  # pieces of a text that are held against one another: the time grows with their square
_PIECE = re.compile(rf"[{CJK}]|[^\W{CJK}]+|\s+|[^\w\s]")


def differences(first: str, second: str) -> list[tuple[Kind, str]]:
    """Runs of text in reading order; those of `same` and `first` make the first text, `same` and `second` the second.

    What comes after LONGEST pieces counts as different where it is not equal as a whole.
    """
    a, b = _PIECE.findall(first), _PIECE.findall(second)
    found: list[tuple[Kind, str]] = []
    matcher = difflib.SequenceMatcher(None, a[:LONGEST], b[:LONGEST], autojunk=False)
    for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes():
        if tag == "equal":
            found.append(("same", "".join(a[a_from:a_to])))
            continue
        found.append(("first", "".join(a[a_from:a_to])))
        found.append(("second", "".join(b[b_from:b_to])))
    rest = "".join(a[LONGEST:]), "".join(b[LONGEST:])
    if rest[0] == rest[1]:
        found.append(("same", rest[0]))
    else:
        found.append(("first", rest[0]))
        found.append(("second", rest[1]))
    return _joined([(kind, text) for kind, text in found if text])


def _joined(runs: list[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
    """A blank that two changed runs share is part of the change: single blanks in between make it hard to read."""
    found: list[tuple[Kind, str]] = []
    for place, (kind, text) in enumerate(runs):
        between = 0 < place < len(runs) - 1 and runs[place - 1][0] != "same" and runs[place + 1][0] != "same"
        if kind == "same" and between and not text.strip():
            found.append(("first", text))
            found.append(("second", text))
        else:
            found.append((kind, text))
    merged: list[tuple[Kind, str]] = []
    waiting: dict[Kind, str] = {"same": "", "first": "", "second": ""}

    def flush(*kinds: Kind) -> None:
        for side in kinds:
            if waiting[side]:
                merged.append((side, waiting[side]))
            waiting[side] = ""

    for kind, text in found:
        flush(*(("first", "second") if kind == "same" else ("same",)))
        waiting[kind] += text
    flush("same", "first", "second")
    return merged
