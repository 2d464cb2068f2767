"""A table of shades as small inline SVG: one square a value; the value itself stands in its title."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from tuneloop.pages.charts import fitted
from tuneloop.pages.drawing import WIDTH

NAMES, ROW, FOOT = 150, 18, 18
WIDEST = 26


def heat(rows: Sequence[tuple[str, Sequence[float]]], unit: str, full: float) -> Markup:
    """(name, values) a row; 0 has no colour, `full` and above has all of it. `unit` says what the columns are."""
    most = max((len(values) for _, values in rows), default=1)
    side = min(WIDEST, (WIDTH - NAMES) / max(1, most))
    parts: list[str] = []
    for index, (name, values) in enumerate(rows):
        y = index * ROW
        text = escape(fitted(name, NAMES - 10))
        parts.append(f'<text class="name" x="{NAMES - 8}" y="{y + 13}" text-anchor="end">{text}</text>')
        for place, value in enumerate(values):
            shade = min(1.0, max(0.0, value / full))
            says = f"<title>{escape(name)}, {escape(unit)} {place}: {value:.3g}</title>"
            parts.append(
                f'<rect class="c1" x="{NAMES + place * side:.1f}" y="{y + 1}" width="{max(0.5, side - 1):.1f}" '
                f'height="{ROW - 2}" fill-opacity="{shade:.2f}">{says}</rect>'
            )
    height = len(rows) * ROW + FOOT
    parts.append(f'<text class="unit" x="{NAMES}" y="{height - 4}">{escape(unit)} 0 to {most - 1}</text>')
    label = escape(", ".join(name for name, _ in rows[:5]))
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
