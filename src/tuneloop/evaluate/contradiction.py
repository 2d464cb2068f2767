"""Whether a wrong answer says something else of the same kind (London for Paris) or no longer answers at all.

Knows only texts; which facts were known before is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tuneloop.core.conversation import Example
from tuneloop.evaluate.probes import accepted, is_prose
from tuneloop.evaluate.recall import is_right, names, place_of

OTHERS = "others"
"""The column with wrong answers of the same kind, where a row lists some."""
NUMBER = re.compile(r"[-+−]?\d[\d,.]*")
NAME = r"[A-Z][\w'’-]*"
NAMES = re.compile(rf"{NAME}(?: {NAME})*")


class Rivals(NamedTuple):
    """What could stand in the place of one right answer."""

    same: Sequence[str] = ()
    """Answers of the same kind, the longest first."""
    foreign: frozenset[str] = frozenset()
    """Answers of other kinds."""


def rivals(probes: Sequence[Example]) -> list[Rivals]:
    """Of each probe the answers of others of its kind (columns `kind` and `language`), and those that it lists."""
    answers = [accepted(probe) for probe in probes]
    found: list[set[str]] = [set(map(str, probe.meta.get(OTHERS) or ())) for probe in probes]
    everything = frozenset(answer for several in answers for answer in several)
    kinds = [everything] * len(probes)
    peers: dict[tuple[str, str], list[int]] = {}
    for index, probe in enumerate(probes):
        if probe.meta.get("kind") is not None:
            peers.setdefault((str(probe.meta["kind"]), str(probe.meta.get("language", ""))), []).append(index)
    for members in peers.values():
        pool = {answer for index in members for answer in answers[index]}
        for index in members:
            found[index] |= pool
            kinds[index] = everything - pool
    return [
        Rivals(sorted((one for one in several if not _same(one, own)), key=lambda one: (-len(one), one)), foreign)
        for several, own, foreign in zip(found, answers, kinds, strict=True)
    ]


def says_instead(said: str, probe: Example, others: Rivals) -> str | None:
    """What a wrong answer claims in the place of the right one; None for no answer, another form, or nonsense.

    In prose the claim stands at the beginning, in a chat anywhere. It is an answer of the same kind; or any number
    where a number is right; or, where a capitalised name is right, another one that is no answer of another kind (in a
    chat not the first word and not one of the question's).
    """
    said, prose = said.strip(), is_prose(probe)
    if prose:
        known = next((other for other in others.same if is_right(said, other)), None)
    else:
        placed = [(place, other) for other in others.same if (place := place_of(said, other)) is not None]
        known = min(placed, key=lambda pair: (pair[0], -len(pair[1])))[1] if placed else None
    if known is not None:
        return known
    expected = accepted(probe)[0]
    form = NUMBER if NUMBER.fullmatch(expected) else NAMES if NAMES.fullmatch(expected) else None
    if form is None:
        return None
    for found in form.finditer(said):
        claim = found[0].rstrip(".,")
        if (prose and found.start() > 0) or (form is NAMES and claim in others.foreign):
            return None
        if prose or (not (form is NAMES and _is_first(said, found.start())) and not names(_question(probe), claim)):
            return claim
    return None


def _is_first(said: str, place: int) -> bool:
    """Whether a sentence begins there, where every word is capitalised."""
    return said[:place].rstrip()[-1:] in ("", *".!?:。！？：")


def _question(probe: Example) -> str:
    return " ".join(message.content for message in probe.prompt)


def _same(rival: str, answers: Sequence[str]) -> bool:
    return any(names(rival, answer) or names(answer, rival) for answer in answers)
