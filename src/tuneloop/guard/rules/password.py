"""Rule `password`: what a text calls a password. Hints, never more: `password: hunter2` may stand in a lesson."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import LINK
from tuneloop.guard.digits import redraw
from tuneloop.guard.rules import Draw, Rule, Span, Strength, Words
from tuneloop.guard.rules.url_credentials import PLACEHOLDER

_NAMED = re.compile(
    rf"(?:密码|口令|(?<![a-z])(?:password|passwd|pwd)){LINK}([!-Z^-~]{{6,64}}?)(?=[\"'“”‘’，。；,;\s]|$)", re.IGNORECASE
)
_EXAMPLE = "example"


class Password(Rule):
    """Hints at passwords: six characters and more, a digit among them, after `password` or 密码; no placeholders."""

    WORDS: ClassVar[Words] = ("密码", "口令", "assw", "ASSW", "pwd", "PWD")
    STRONGEST: ClassVar[Strength] = "weak"

    def find(self, text: str) -> Iterable[Span]:
        for match in _NAMED.finditer(text):
            if any(character.isdigit() for character in match[1]) and not PLACEHOLDER.search(match[1]):
                yield Span(*match.span(1), "weak")

    def surrogate(self, text: str, draw: Draw) -> str:
        return _EXAMPLE + redraw(text[len(_EXAMPLE) :], draw.random)
