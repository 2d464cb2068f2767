"""What a section of the card is made of; `page` turns blocks into HTML, `text` into Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """A line of large numbers: (label, value)."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Cells are texts; the first `text` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    text: int = 1
    note: str = ""
    folded: bool = False
    """Folded away on the page: details that few need."""
    beside: bool = False
    """Narrow enough to stand beside the drawing before it."""


@dataclass(frozen=True)
class Columns:
    """A histogram: one group of columns a label; `mark` is (position between labels, what stands there)."""

    title: str
    labels: Sequence[str]
    series: Sequence[tuple[str, Sequence[float]]]
    """(name, one value a label)."""
    unit: str
    mark: tuple[float, str] | None = None


@dataclass(frozen=True)
class Bars:
    """Stacked horizontal bars: (label, one value a part, what is written at its end)."""

    title: str
    parts: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float], str]]
    head: str = ""
    """What the labels are, for the Markdown table."""


@dataclass(frozen=True)
class Line:
    """A curve through (x, y) points."""

    title: str
    points: Sequence[tuple[float, float]]
    x: str
    y: str


@dataclass(frozen=True)
class Rings:
    """Two rings: (name, count, [(name, count), …]) from the inside out."""

    title: str
    tree: Sequence[tuple[str, int, Sequence[tuple[str, int]]]]
    head: tuple[str, str]
    """What the rings are, for the Markdown table."""


@dataclass(frozen=True)
class Proof:
    """Checks that either hold or do not: (holds, what was checked, on how many)."""

    lines: Sequence[tuple[bool, str, str]]


@dataclass(frozen=True)
class Note:
    """A sentence."""

    text: str


Block = Figures | Table | Columns | Bars | Line | Rings | Proof | Note
