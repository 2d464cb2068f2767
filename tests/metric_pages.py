"""docs/metrics.md from the metrics themselves; run as a program, it writes the page anew.

python tests/metric_pages.py docs/metrics.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tuneloop.core import docstrings
from tuneloop.evaluate.metrics import METRICS, Metric

MARKS = ("<!-- metrics -->", "<!-- end of metrics -->")
DIRECTION = {"higher": "higher is better", "lower": "lower is better", "neither": "neither direction is better"}
NEEDS = {
    "generation": "one greedy answer",
    "likelihood": "likelihood of the reference (weights in this process)",
    "choices": "likelihood of each choice (weights in this process)",
    "samples": "several sampled answers",
}
AGGREGATION = {
    "proportion": ("share of rows", "Wilson; paired: Newcombe, McNemar's exact p"),
    "mean": ("mean over rows", "BCa bootstrap; paired bootstrap"),
    "geometric": ("token-weighted geometric mean", "bootstrap over rows; paired bootstrap"),
    "corpus": ("from sums over all rows", "BCa bootstrap over rows; paired bootstrap"),
}


def generated() -> list[str]:
    """An overview, then a section for each metric."""
    metrics = {name: METRICS.make(name) for name in METRICS.names()}
    lines = ["| metric | says | range | needs |", "|---|---|---|---|"]
    for name, metric in metrics.items():
        says = (sys.modules[type(metric).__module__].__doc__ or "").partition(": ")[2].strip().splitlines()[0]
        lines.append(f"| [`{name}`](#{name}) | {says} | {_range(metric)} | {NEEDS[metric.NEEDS]} |")
    for name, metric in metrics.items():
        lines += ["", *section(name, metric)]
    return lines


def section(name: str, metric: Metric) -> list[str]:
    """What one metric says of itself."""
    about = [" ".join(part.split()) for part in (type(metric).__doc__ or "").strip().split("\n\n")]
    number, interval = AGGREGATION[metric.AGGREGATION]
    if type(metric).distance is not Metric.distance:
        interval = "value ± what resamples differ by, which is never too narrow; paired bootstrap"
    needs = NEEDS[metric.NEEDS] + (", a reference" if metric.REFERENCE else "")
    lines = [
        f"### {name}", *_parted(about), "",
        f"- Range {_range(metric)}. Needs {needs}.",
        f"- Number: {number}. Interval: {interval}.",
        f"- Signature: `{metric.signature}`",
    ]  # fmt: skip
    options = type(metric).model_fields
    if options:
        lines += ["", "| option | default | |", "|---|---|---|"]
    for key, option in options.items():
        default = json.dumps(option.get_default(call_default_factory=True), ensure_ascii=False)
        said = " ".join(docstrings.of_fields(type(metric)).get(key, "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | `{default}` | {said} |")
    return lines


def _parted(paragraphs: list[str]) -> list[str]:
    return [line for place, paragraph in enumerate(paragraphs) for line in ([""] if place else []) + [paragraph]]


def _range(metric: Metric) -> str:
    low = "1" if metric.AGGREGATION == "geometric" else "0"
    return f"{low} … {'1' if metric.BOUNDED else '∞'}, {DIRECTION[metric.BETTER]}"


def written(page: str) -> str:
    """A page with everything between the marks made anew."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return "\n".join([before + MARKS[0], *generated(), MARKS[1] + after])


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text("utf-8")), "utf-8")
