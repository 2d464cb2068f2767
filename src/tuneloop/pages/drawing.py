"""Curves and intervals as small inline SVG, coloured by the page's style sheet; every label is escaped.

Numbers and names come in, markup goes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

Point = tuple[float, float]
WIDTH, HEIGHT = 560, 220  # user units of a curve; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
MOST_POINTS = 400  # more than this a screen cannot show


def intervals_bar(base: Mapping[str, Any] | None, tuned: Mapping[str, Any] | None, low: float, high: float) -> Markup:
    """Base above tuned on one scale from `low` to `high`: a line for the interval, a dot for the value."""
    rows = [(name, value, y) for name, value, y in (("base", base, 6), ("tuned", tuned, 16)) if _measured(value)]
    span = high - low or 1.0
    parts = ['<line class="axis" x1="3" x2="157" y1="11" y2="11"/>']
    for name, value, y in rows:
        assert value is not None
        ends = [3 + 154 * min(1.0, max(0.0, (value[key] - low) / span)) for key in ("low", "value", "high")]
        parts.append(f'<line class="range {name}" x1="{ends[0]:.1f}" x2="{ends[2]:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot {name}" cx="{ends[1]:.1f}" cy="{y}" r="3.4"/>')
    label = ", ".join(f"{name} {value['value']:.3g}" for name, value, _ in rows if value)
    head = f'<svg class="bar" viewBox="0 0 160 22" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _measured(value: Mapping[str, Any] | None) -> bool:
    return value is not None and value.get("value") is not None


def curves(lines: Sequence[tuple[str, str, Sequence[Point]]], log: bool = False) -> Markup:
    """A chart of (label, class, points) lines with axes; a line of few points also gets dots. Empty without points."""
    points = [point for _, _, line in lines for point in line]
    if not points:
        return Markup("")
    ys = [y for _, y in points]
    low, high = (min(ys), max(ys)) if log else (min(0.0, min(ys)), max(ys))
    log = log and low > 0 and high / low > 20
    ticks = log_ticks(low, high) if log else round_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    xs = [x for x, _ in points]
    first, last = min(xs), max(xs)

    def at(x: float, y: float) -> Point:
        across = (x - first) / ((last - first) or 1)
        up = math.log(y / low) / math.log(high / low) if log else (y - low) / ((high - low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        y = at(first, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(short(tick))}</text>')
    for tick in round_ticks(first, last, 6):
        if first <= tick <= last:
            x = at(tick, ticks[0])[0]
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 9}" text-anchor="middle">{escape(short(tick))}</text>')
    for _, kind, line in lines:
        places = [at(x, y) for x, y in line]
        if len(places) > 1:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<path class="curve {escape(kind)}" d="{path}"/>')
        if len(places) <= 30:
            parts += [f'<circle class="dot {escape(kind)}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    label = ", ".join(label for label, _, _ in lines)
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def thinned(line: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points; each is the mean of the neighbours it stands for, the last one kept."""
    if len(line) <= MOST_POINTS:
        return list(line)
    size = math.ceil(len(line) / MOST_POINTS)
    blocks = [line[start : start + size] for start in range(0, len(line), size)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in blocks[:-1]] + [line[-1]]


def smoothed(line: Sequence[Point], share: float = 0.03) -> list[Point]:
    """Centred running mean over `share` of the points; the steep beginning is not flattened, the end not left noisy."""
    half = max(1, round(len(line) * share / 2))
    out: list[Point] = []
    for index, (x, _) in enumerate(line):
        before = min(half, index)
        after = before if index < half else half
        window = line[index - before : index + after + 1]
        out.append((x, sum(y for _, y in window) / len(window)))
    return out


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10, 20) if (high - low) / (factor * step) <= most)
    return [step * k for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from at or below `low` to at or above `high`."""
    return [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def short(value: float) -> str:
    """A tick's label: few digits, powers of ten for the very large and small."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"
