"""The overfitting watch: what validation loss, training loss and metrics say together, from rows of metrics.jsonl.

The rule: over the last WINDOW validations two series move for sure, and not in the same sense. A series moves for sure
when at most two of its 28 pairs of values are out of order (Kendall's S of at least 24, p = 0.0009 without a trend; M.
Kendall, Rank Correlation Methods, 1948) and its later half differs from its earlier by MATERIAL. False alarms in a run
of 20 validations by simulation (tests/unit/tune/test_watch.py): 1 % where noise is independent, 3 % where neighbours
correlate by 0.3, 7 % by 0.5, 19 % by 0.8, for one series where the other truly moves; below 1 % where neither does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

from tuneloop.track import console
from tuneloop.track.metrics import Metrics
from tuneloop.tune.validation import Measured

Row = Mapping[str, Any]
WINDOW = 8
"""Validations that are looked at together."""
SURE = 24
"""Of the 28 pairs among them: in order less out of order."""
MATERIAL = 0.01
"""Of the value: a smaller change is not worth a warning."""


@dataclass(frozen=True)
class Finding:
    """A warning: `overfits`, `loss_falls_metric_falls` or `loss_rises_metric_rises`, since which step, in words."""

    kind: Literal["overfits", "loss_falls_metric_falls", "loss_rises_metric_rises"]
    metric: str
    step: int
    """Of the validation at which it was sure for the first time."""
    text: str


def write(metrics: Metrics, row: dict[str, Any], measured: Measured | None, every: int) -> None:
    """Writes a step's line; after a validation (of which there is one each `every` steps) with what it shows."""
    if measured is None:
        metrics.write(row)
        return
    rows = [*metrics.rows, row]
    row["loss_gap"] = row["val_loss"] - train_loss(rows)
    if not any("val_loss" in before for before in metrics.rows):
        took, steps = row["validation_seconds"], every * sum(line["seconds"] for line in rows) / len(rows)
        console.decided(
            "validation",
            f"takes {took:.1f} s after each {every} steps of {steps:.1f} s: {took / (took + steps):.0%} of the time "
            f"(tune.validation: every, rows, generate, metrics)",
        )
    found = findings(rows, {name: lower for name, (_, lower) in measured.values.items()})
    for one in found:
        console.decided("overfitting", one.text)
    if found:
        row["findings"] = [asdict(one) for one in found]
    metrics.write(row, measured.answers)


def train_loss(rows: Sequence[Row]) -> float:
    """The mean training loss per supervised token of the steps since the validation before the last row's."""
    steps: list[Row] = [rows[-1]]
    for row in reversed(rows[:-1]):
        if "val_loss" in row:
            break
        steps.append(row)
    return sum(row["loss"] * row["supervised_tokens"] for row in steps) / sum(row["supervised_tokens"] for row in steps)


def trend(values: Sequence[float]) -> int:
    """1 where the last WINDOW values rise for sure, -1 where they fall, else 0."""
    last = values[-WINDOW:]
    order = sum((after > before) - (after < before) for before, after in combinations(last, 2))
    half = WINDOW // 2
    early, late = sum(last[:half]) / half, sum(last[half:]) / half
    if len(last) < WINDOW or abs(order) < SURE or not abs(late - early) >= MATERIAL * abs(early):
        return 0
    return 1 if order > 0 else -1


def findings(rows: Sequence[Row], lower: Mapping[str, bool | None]) -> list[Finding]:
    """What the last row's validation shows that no row before has said.

    `lower` says of each metric whether less is better, None where neither is: such a one gives no warnings.
    """
    said = {(one["kind"], one["metric"]) for row in rows for one in row.get("findings", ())}
    measured = [row for row in rows if row.get("val_loss") is not None]
    return [one for one in _look(measured, lower) if (one.kind, one.metric) not in said]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The part `watch` of summary.json: [step, loss_gap] of each validation, and the warnings."""
    gaps = [[row["step"], row["loss_gap"]] for row in rows if "loss_gap" in row]
    return {"loss_gap": gaps, "findings": [one for row in rows for one in row.get("findings", ())]}


def _look(measured: Sequence[Row], lower: Mapping[str, bool | None]) -> Iterator[Finding]:
    """What the last WINDOW validations say."""
    loss = [row["val_loss"] for row in measured]
    moved, step = trend(loss), measured[-1]["step"]
    if moved == 0:
        return
    better: set[int] = set()
    beside: list[str] = []
    over = f"steps {measured[-WINDOW]['step']} to {step}"
    for name, falling_is_better in lower.items():
        values = [row[f"val_{name}"] for row in measured if row.get(f"val_{name}") is not None]
        if name == "loss" or falling_is_better is None or len(values) < len(measured):
            continue
        gain = trend(values) * (-1 if falling_is_better else 1)
        better.add(gain)
        beside.append(f"{name} {values[-WINDOW]:.3g} → {values[-1]:.3g}")
        best = measured[values.index((min if falling_is_better else max)(values))]["step"]
        change = f"{values[-WINDOW]:.3g} → {values[-1]:.3g}, {over}"
        if moved < 0 and gain < 0:
            yield Finding(
                "loss_falls_metric_falls", name, step,
                f"validation loss falls, but {name} gets worse ({change}). Trust {name}: it judges the answers that "
                f"users get, the loss only next tokens after a perfect beginning. See how the answers changed in "
                f"curves.html; early_stopping: {{metric: {name}}} keeps the weights of step {best}",
            )  # fmt: skip
        if moved > 0 and gain > 0:
            yield Finding(
                "loss_rises_metric_rises", name, step,
                f"validation loss rises, but {name} still gets better ({change}), as is common in tuning: the model "
                f"grows too sure of the tokens it misses while its answers improve. Trust {name} for greedy answers "
                f"(early_stopping: {{metric: {name}}}), the loss where probabilities count",
            )  # fmt: skip
    if moved > 0 and 1 not in better:
        change = f"{loss[-WINDOW]:.3f} → {loss[-1]:.3f}"
        lowest = measured[loss.index(min(loss))]["step"]
        yield Finding(
            "overfits", "loss", step,
            f"validation loss rises ({', '.join([change, *beside, over])}): the model overfits since step {lowest}. "
            f"Take fewer epochs, a lower rate or more rows; early_stopping keeps the weights of that step",
        )  # fmt: skip
