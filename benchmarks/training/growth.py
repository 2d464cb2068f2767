"""Two drawings: what more rows cost in preparation, and what longer rows cost in training."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

Row = dict[str, Any]
DRAWINGS = (
    ("growth_rows", "prepare-", "chats", {"seconds": "seconds to tokens, masks and plan"}),
    (
        "growth_length", "length-", "tokens a row",
        {"tokens_per_second": "real tokens a second", "peak_gib": "peak memory, GiB"},
    ),
)  # fmt: skip
"""File, works, what grows, and the columns drawn with their titles."""
COLOURS = {"tuneloop": "#0a7d5a", "trl": "#b0413e", "trl-processes": "#d98880", "trl-length": "#d98880"}


def draw(by_work: dict[str, list[Row]], folder: Path) -> list[Path]:
    """Writes growth_rows.svg and growth_length.svg, as far as there are samples; returns what was written."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "benchmark"  # the same samples give the same file
    import matplotlib.pyplot as plt

    drawn = []
    for name, prefix, label, panels in DRAWINGS:
        curves = {key: _curves(by_work, prefix, key) for key in panels}
        if not any(len(points) > 1 for found in curves.values() for points in found.values()):
            continue
        figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.4), squeeze=False)
        for axis, (key, title) in zip(axes[0], panels.items(), strict=True):
            for contestant, points in curves[key].items():
                axis.plot(*zip(*points, strict=True), "o-", label=contestant, color=COLOURS.get(contestant))
            axis.set(xlabel=label, title=title, xscale="log")
            sizes = sorted({size for points in curves[key].values() for size, _ in points})
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.minorticks_off()
            axis.set_ylim(bottom=0) if prefix == "length-" else axis.set_yscale("log")
            axis.grid(alpha=0.3)
        figure.tight_layout(rect=(0, 0.16, 1, 1))  # below it, where no curve runs
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        drawn.append(path)
    return drawn


def _curves(by_work: dict[str, list[Row]], prefix: str, key: str) -> dict[str, list[tuple[int, float]]]:
    """Contestant → (size, median) by size."""
    found: dict[str, dict[int, list[float]]] = {}
    for work, rows in by_work.items():
        if work.startswith(prefix):
            for row in rows:
                if key in row:
                    sizes = found.setdefault(row["contestant"], {})
                    sizes.setdefault(int(work.removeprefix(prefix)), []).append(row[key])
    return {
        name: [(size, statistics.median(values)) for size, values in sorted(sizes.items())]
        for name, sizes in found.items()
    }
