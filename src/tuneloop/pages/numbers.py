"""Numbers as people read them, the same on every page and in every table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals below 10, three digits above, a dash for nothing; a true minus sign."""
    if value is None:
        return "–"
    size = abs(value)
    text = f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:.3g}"
    if signed and value > 0 and float(text) != 0:
        text = "+" + text
    return text.replace("-", "−") if float(text) != 0 else text.removeprefix("-")


def interval(value: Mapping[str, Any] | None, signed: bool = False) -> str:
    """`low … high`, or nothing."""
    if not value or value.get("low") is None:
        return ""
    return f"{number(value['low'], signed)} … {number(value['high'], signed)}"


def probability(p: float | None) -> str:
    """A p-value, never as 0."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(confidence: float) -> str:
    """95 %, 99.5 %."""
    return f"{100 * confidence:g} %"


def share(part: float, whole: float = 1.0) -> str:
    """A part of a whole as 37 %, 3.7 % or < 0.1 %; a dash where there is no whole. What is not 0 never reads as 0."""
    if not whole:
        return "–"
    value = 100 * part / whole
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:  # what is not all never reads as all
        return "> 99.9 %"
    return f"{value:.0f} %" if value == 0 or value >= 99.95 or 10 <= value < 99 else f"{value:.1f} %"


def count(value: float | None) -> str:
    """A count with commas: 12,345; a dash for nothing."""
    return "–" if value is None else f"{value:,.0f}"
