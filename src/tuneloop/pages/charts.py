"""Columns, bars and rings as small inline SVG, coloured by the page's style sheet; every label is escaped.

Part n of anything has the class `c1` to `c8`, and again from `c1` on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from tuneloop.pages.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, round_ticks, short

COLOURS = 8
MOST_LABELS = 13  # on an axis
WIDEST = 40  # of the columns behind one label
ROW, GAP = 24, 6  # height of a bar with the space below it, and that space
NAMES, NOTES = 168, 62  # width for the names before the bars and what is written after them
LETTER, DENSE = 7.0, 12.0  # width of a letter of 11.5 px; Chinese, Japanese and Korean ones are as wide as high
CENTRE, INNER, MIDDLE, OUTER = 280, 62, 156, 262  # centre and radii of the rings


def colour(part: int) -> str:
    """The class of part n, which counts from 0."""
    return f"c{part % COLOURS + 1}"


def columns(
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    unit: str,
    mark: tuple[float, str] | None = None,
) -> Markup:
    """A histogram; a label stands at the left end of its columns. `mark` is a line at a place between labels."""
    highest = max((value for _, values in series for value in values), default=0)
    ticks = [tick for tick in round_ticks(0, highest or 1, 4) if highest >= 3 or tick == int(tick)]
    top = max(ticks[-1], highest)
    span = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    base = HEIGHT - BOTTOM

    def up(value: float) -> float:
        return value / top * (base - TOP)

    parts = []
    for tick in ticks:
        y = base - up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(short(tick))}</text>')
    width = min(WIDEST, span * 0.86) / max(1, len(series))
    for index, (name, values) in enumerate(series):
        for place, value in enumerate(values):
            if value > 0:
                x, height = LEFT + place * span + span * 0.07 + index * width, max(1.0, up(value))
                says = f"<title>{escape(name)}, {escape(labels[place])} {escape(unit)}: {value:,g}</title>"
                parts.append(
                    f'<rect class="{colour(index)}" x="{x:.1f}" y="{base - height:.1f}" width="{max(0.5, width):.1f}" '
                    f'height="{height:.1f}">{says}</rect>'
                )
    every = -(-len(labels) // MOST_LABELS)
    for place in range(0, len(labels), every):
        text = escape(labels[place])
        parts.append(f'<text x="{LEFT + place * span:.1f}" y="{HEIGHT - 13}" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">{escape(unit)}</text>')
    if mark is not None:
        x = LEFT + mark[0] * span
        side, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{base}"/>')
        parts.append(
            f'<text class="mark" x="{x + shift:.1f}" y="{TOP + 2}" text-anchor="{side}">{escape(mark[1])}</text>'
        )
    return _svg("chart", WIDTH, HEIGHT, ", ".join(name for name, _ in series), parts)


def bars(parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float], str]]) -> Markup:
    """Stacked horizontal bars: (name, one value a part, what is written at the end)."""
    longest = max((sum(values) for _, values, _ in rows), default=0) or 1
    span = WIDTH - NAMES - NOTES
    drawn = []
    for index, (name, values, note) in enumerate(rows):
        y = index * ROW
        x = float(NAMES)
        drawn.append(
            f'<text class="name" x="{NAMES - 8}" y="{y + 13}" text-anchor="end">{escape(fitted(name, NAMES - 10))}'
            f"<title>{escape(name)}</title></text>"
        )
        for part, value in enumerate(values):
            if value > 0:
                width = max(1.0, value / longest * span)
                says = f"<title>{escape(name)}, {escape(parts[part])}: {value:,g}</title>"
                place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - GAP}"'
                drawn.append(f'<rect class="{colour(part)}" {place}>{says}</rect>')
                x += width
        drawn.append(f'<text x="{x + 7:.1f}" y="{y + 13}">{escape(note)}</text>')
    return _svg("chart", WIDTH, max(ROW, len(rows) * ROW), ", ".join(name for name, _, _ in rows[:5]), drawn)


def rings(tree: Sequence[tuple[str, float, Sequence[tuple[str, float]]]]) -> Markup:
    """Two rings: the names inside, by size; outside, each name's angle divided among its children by theirs."""
    total = sum(size for _, size, _ in tree) or 1
    drawn: list[str] = []
    start = 0.0
    for index, (name, size, children) in enumerate(tree):
        turn = size / total
        drawn.append(_arc(start, turn, INNER, MIDDLE, colour(index), f"{name}: {size:,g}"))
        drawn += _along(start + turn / 2, turn, INNER, MIDDLE, name, "inside")
        at = start
        for child, part in children:
            share = turn * part / (sum(value for _, value in children) or 1)
            drawn.append(_arc(at, share, MIDDLE + 2, OUTER, f"{colour(index)} soft", f"{name} {child}: {part:,g}"))
            drawn += _along(at + share / 2, share, MIDDLE + 2, OUTER, child, "outside")
            at += share
        start += turn
    return _svg("rings", 2 * CENTRE, 2 * CENTRE, ", ".join(name for name, _, _ in tree[:8]), drawn)


def fitted(text: str, width: float) -> str:
    """As much of a text as fits, with … where it does not."""
    line = " ".join(text.split())
    used = 0.0
    for index, character in enumerate(line):
        used += DENSE if character >= "\u2e80" else LETTER
        if used > width:
            return line[: max(1, index - 1)].rstrip() + "…"
    return line


def _arc(start: float, turn: float, inner: float, outer: float, kind: str, says: str) -> str:
    """A piece of a ring; places and sizes in turns of the whole, from the top on."""
    turn = min(turn, 0.999)  # a whole turn has no ends to draw an arc between
    large = int(turn > 0.5)
    corners = [_at(start, outer), _at(start + turn, outer), _at(start + turn, inner), _at(start, inner)]
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    path = (
        f"M{ax:.2f} {ay:.2f}A{outer} {outer} 0 {large} 1 {bx:.2f} {by:.2f}L{cx:.2f} {cy:.2f}"
        f"A{inner} {inner} 0 {large} 0 {dx:.2f} {dy:.2f}Z"
    )
    return f'<path class="{kind}" d="{path}"><title>{escape(says)}</title></path>'


def _along(middle: float, turn: float, inner: float, outer: float, text: str, kind: str) -> Iterator[str]:
    """A label along the radius, read from the left on both sides; nothing where its arc is thinner than a line."""
    radius = (inner + outer) / 2
    if turn * 2 * math.pi * radius < 15:
        return
    x, y = _at(middle, radius)
    angle = middle * 360 - 90 + (180 if middle > 0.5 else 0)
    yield (
        f'<text class="{kind}" transform="translate({x:.1f} {y:.1f}) rotate({angle:.1f})" text-anchor="middle" '
        f'dominant-baseline="central">{escape(fitted(text, outer - inner - 8))}</text>'
    )


def _at(turn: float, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * turn
    return CENTRE + radius * math.sin(angle), CENTRE - radius * math.cos(angle)


def _svg(kind: str, width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")
