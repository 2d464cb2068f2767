"""Whether a wrong answer says something else of the same kind (London for Paris) or no longer answers at all.

Knows only texts; which facts were known before is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.core.conversation import Example
from tuneloop.evaluate.judging import is_right, names, place_of
from tuneloop.evaluate.probes import accepted, is_prose
from tuneloop.evaluate.scoring import groups

OTHERS = "others"
"""The column with wrong answers of the same kind, where a row lists some."""
NUMBER = re.compile(r"[-+−]?\d[\d,.]*")
NAME = r"[A-Z][\w'’-]*"
NAMES = re.compile(rf"{NAME}(?: {NAME})*")


def rivals(probes: Sequence[Example]) -> list[list[str]]:
    """Of each probe the answers of others of its kind (columns `kind` and `language`), and those that it lists."""
    answers = [[*accepted(probe)] for probe in probes]
    metas: list[Mapping[str, Any]] = [{"language": "", **probe.meta} for probe in probes]
    found: list[set[str]] = [set(map(str, probe.meta.get(OTHERS) or ())) for probe in probes]
    for members in groups(metas, "kind+language").values():
        pool = {answer for index in members for answer in answers[index]}
        for index in members:
            found[index] |= pool
    return [
        sorted((rival for rival in several if not _same(rival, own)), key=lambda rival: (-len(rival), rival))
        for several, own in zip(found, answers, strict=True)
    ]


def says_instead(said: str, probe: Example, others: Sequence[str]) -> str | None:
    """What a wrong answer claims in the place of the right one; None for no answer, another form, or nonsense.

    In prose the claim stands at the beginning, in a chat anywhere. It is one of `others`; or any number where a number
    is right; or, where a capitalised name is right, another one (in a chat not the first word and not one of the
    question's).
    """
    said, prose = said.strip(), is_prose(probe)
    if prose:
        known = next((other for other in others if is_right(said, other)), None)
    else:
        placed = [(place, other) for other in others if (place := place_of(said, other)) is not None]
        known = min(placed, key=lambda pair: (pair[0], -len(pair[1])))[1] if placed else None
    if known is not None:
        return known
    expected = accepted(probe)[0]
    form = NUMBER if NUMBER.fullmatch(expected) else NAMES if NAMES.fullmatch(expected) else None
    if form is None:
        return None
    if prose:
        found = form.match(said)
        return found[0].rstrip(".,") if found else None
    question = " ".join(message.content for message in probe.prompt)
    for found in form.finditer(said):
        first = form is NAMES and (found.start() == 0 or said[: found.start()].rstrip()[-1:] in ".!?:。！？：\n")
        if not first and not names(question, found[0]):
            return found[0].rstrip(".,")
    return None


def _same(rival: str, answers: Sequence[str]) -> bool:
    return any(names(rival, answer) or names(answer, rival) for answer in answers)
