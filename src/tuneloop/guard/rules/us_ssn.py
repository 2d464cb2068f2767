"""Rule `us_ssn`: social security numbers of the United States."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard import digits
from tuneloop.guard.borders import BEGUN, LONG_NUMBER, RIGHT, label, labelled
from tuneloop.guard.rules import Draw, Rule, Span

_NUMBER = re.compile(
    rf"([0-8]{BEGUN}(?<![0-9][\-.].)[0-9]{{2}})([ \-]?)([0-9]{{2}})\2([0-9]{{4}}){RIGHT}(?![\-.][0-9])"
)
_LABEL = label("(?<![a-z])(?:ssn|social security)|社会安全|社安")


class UsSsn(Rule):
    """Social security numbers: written 3-2-4 with hyphens, or in any way after `SSN` or 社会安全号."""

    DIGITS: ClassVar[str | None] = LONG_NUMBER

    def find(self, text: str) -> Iterable[Span]:
        for match in _NUMBER.finditer(text):
            area, separator, group, serial = match.groups()
            if _is_issued(area, group, serial) and (
                separator == "-" or labelled(_LABEL, text, match.start()) is not None
            ):
                yield Span(match.start(), match.end())

    def surrogate(self, text: str, draw: Draw) -> str:
        return digits.pour("000" + digits.drawn(len(digits.only(text)) - 3, draw.random), text)


def _is_issued(area: str, group: str, serial: str) -> bool:
    """Areas 000, 666 and from 900, group 00 and serial 0000 are never issued (SSA, 2011)."""
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
