"""Rules that find personal data and secrets, one file a kind; the file's name is the kind.

A rule answers twice: where its kind stands in a text, and what to write instead that no real person has.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal, NamedTuple

from tuneloop.core.plugins import Family, Plugin

Strength = Literal["strong", "weak"]
"""`strong`: form and check digit, valid range or a word in front say so. `weak`: a hint for a person to look at, or a
value from a range that is reserved for examples."""


Words = tuple[str, ...] | re.Pattern[str]


class Span(NamedTuple):
    """A place in a text, end exclusive."""

    start: int
    end: int
    strength: Strength = "strong"


@dataclass(frozen=True, slots=True)
class Draw:
    """Chance for the surrogates of one document; `days` is by how much its dates are shifted, the same for all."""

    random: Random
    days: int


class Rule(Plugin, ABC):
    """One kind of personal data.

    Borders are ASCII lookarounds: `\\b` fails beside Chinese, whose characters are word characters too.
    """

    DIGITS: ClassVar[str | None] = None
    """A pattern of what follows some digit in every text that holds a find; None: finds need no digit."""
    WORDS: ClassVar[Words] = ()
    """One of them, or a match of the pattern, stands in every text that holds a find; empty: no word is needed.

    `find` is called only where DIGITS and WORDS allow it, which most texts do not: they must be cheap.
    """
    STRONGEST: ClassVar[Strength] = "strong"
    """`weak` for rules that only ever hint; they do not run where only strong finds are wanted."""

    @abstractmethod
    def find(self, text: str) -> Iterable[Span]:
        """Where this kind stands; spans may overlap. Full-width letters and digits arrive as ASCII."""

    @abstractmethod
    def surrogate(self, text: str, draw: Draw) -> str:
        """A value of the same shape that is no strong find, whatever stands in front of it (dates, when shifted, are).

        It depends on the shape of `text`, never on its value: nobody can try values until the surrogate fits.
        `text` is longer than a find of this rule where finds overlapped.
        """


RULES: Family[Rule] = Family("rules", __name__, Rule)
