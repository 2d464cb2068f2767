"""Rule `email`: mail addresses, also directly after Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import RIGHT
from tuneloop.guard.digits import redraw
from tuneloop.guard.rules import Draw, Rule, Span, Words

_LOCAL = r"[A-Za-z0-9._%+\-]"
# an address is no call (`a@b.dot(c)`) and no remote (`git@host.org:path`)
_ADDRESS = re.compile(
    rf"(?<![A-Za-z0-9_%+])(?![.\-])(?!git@){_LOCAL}{{1,64}}@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{{0,62}})\.)+"
    rf"[A-Za-z]{{2,24}}{RIGHT}(?![(\[])"
)
_NOBODY = re.compile(
    r"^your|@your|(?:@|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE
)  # RFC 2606


class Email(Rule):
    """Mail addresses. Those of example.com and its like, where no mail arrives, and `your…` are hints only."""

    WORDS: ClassVar[Words] = ("@",)

    def find(self, text: str) -> Iterable[Span]:
        for match in _ADDRESS.finditer(text):
            yield Span(match.start(), match.end(), "weak" if _NOBODY.search(match[0]) else "strong")

    def surrogate(self, text: str, draw: Draw) -> str:
        return redraw(text.partition("@")[0], draw.random) + "@example.com"
