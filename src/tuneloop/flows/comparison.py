"""What is known of finished runs beside their scores: what was trained, how fast, in how much memory, set differently.

One row a run, for sweeps and comparisons alike; `comparison_pages` shows them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from tuneloop.core import jsonl
from tuneloop.pages.numbers import number
from tuneloop.track import metrics

Json = dict[str, Any]
COSTS = {
    "trained": "trained parameters", "tokens_per_second": "tokens/s", "memory_gib": "memory, GiB",
    "seconds": "training, s", "bytes": "size on disk, MB", "answers_per_second": "answers/s",
    "val_loss": "validation loss",
}  # fmt: skip
NOT_SETTINGS = ("name", "track", "evaluate.gate")
"""Of a recipe, what changes no result."""


@dataclass(frozen=True)
class Row:
    """One run in the table; a value that was not measured is absent. `error` says why there is none at all."""

    name: str
    costs: dict[str, float] = field(default_factory=dict[str, float])
    scores: dict[str, Json] = field(default_factory=dict[str, Json])
    """Metric → value with n and interval, of the tuned model."""
    base: dict[str, Json] = field(default_factory=dict[str, Json])
    """The same of the base."""
    curve: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Validation loss by step."""
    runs: dict[str, str] = field(default_factory=dict[str, str])
    error: str | None = None

    def to_json(self) -> Json:
        """For sweep.json and compare.json."""
        return {
            "name": self.name, "costs": self.costs, "scores": self.scores, "base": self.base, "curve": self.curve,
            "runs": self.runs, "error": self.error,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Json) -> Row:
        return cls(**{**value, "curve": [(step, loss) for step, loss in value["curve"]]})


def row_of(name: str, tuned: Path | None, evaluated: Path | None = None) -> Row:
    """The row of finished runs: of the stage `tune` and of its evaluation, as far as they are there."""
    row = Row(name)
    if tuned is not None:
        _add_training(row, tuned)
    if evaluated is not None:
        _add_evaluation(row, evaluated)
    return row


def _add_training(row: Row, tuned: Path) -> None:
    steps = metrics.read(tuned / "metrics.jsonl")
    summary = jsonl.read(tuned / "out" / "summary.json")
    row.curve.extend((line["step"], line["val_loss"]) for line in steps if line.get("val_loss") is not None)
    row.costs.update(
        trained=summary["trained"],
        tokens_per_second=statistics.median(line["tokens_per_second"] for line in steps),
        memory_gib=max(line["memory_gib"] for line in steps),
        seconds=sum(line["seconds"] for line in steps),
        bytes=summary["bytes"],
    )
    if row.curve:
        row.costs["val_loss"] = min(value for _, value in row.curve)
    row.runs["tune"] = str(tuned)


def _add_evaluation(row: Row, evaluated: Path) -> None:
    report = jsonl.read(evaluated / "out" / "report.json")
    entries = {**report["metrics"], **abilities(report)}
    row.scores.update({metric: entry["tuned"] for metric, entry in entries.items() if entry.get("tuned")})
    row.base.update({metric: entry["base"] for metric, entry in entries.items() if entry.get("base")})
    answers = report.get("answers", {}).get("tuned", {})
    made = answers.get("n", 0) - answers.get("known", 0)  # those that a cache gave took no time
    if made and answers.get("seconds"):
        row.costs["answers_per_second"] = made / answers["seconds"]
    row.runs["evaluate"] = str(evaluated)


def abilities(report: Json) -> dict[str, Json]:
    """What a report says of forgetting, by ability: numbers of base and tuned, their difference."""
    value = report.get("forgetting") or {}
    return value.get("abilities") or ({"known facts": value} if value else {})


def columns(rows: Sequence[Row]) -> list[str]:
    """The metrics that any of the rows has, in their order."""
    return list(dict.fromkeys(metric for row in rows for metric in row.scores))


def costs(rows: Sequence[Row]) -> dict[str, str]:
    """The costs that any of the rows has, with their titles."""
    return {name: title for name, title in COSTS.items() if any(name in row.costs for row in rows)}


def cost(name: str, row: Row) -> str:
    """A cost as text."""
    value = row.costs.get(name)
    if value is None:
        return "–"
    if name == "bytes":
        return f"{value / 1e6:,.1f}"
    return f"{value:,.0f}" if name in ("trained", "tokens_per_second", "seconds") else number(value)


def common_base(rows: Sequence[Row]) -> dict[str, Json]:
    """The base's scores, where all rows were tuned from one and asked the same."""
    found = [row.base for row in rows if row.base]
    return found[0] if found and all(one == found[0] for one in found) else {}


# -- recipes ----------------------------------------------------------------------------------------------------------
def settings_apart(recipes: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Key of the recipe → run → value as text, for the keys that are not set alike in all runs."""
    flat = {name: dict(_flat(yaml.safe_load(path.read_text("utf-8")))) for name, path in recipes.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        values = {name: _said(one[key]) if key in one else "–" for name, one in flat.items()}
        ignored = any(key == name or key.startswith(f"{name}.") for name in NOT_SETTINGS)
        if len(set(values.values())) > 1 and not ignored:
            found[key] = values
    return found


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Leaves of a recipe by their dotted keys; a list is one value."""
    if isinstance(value, dict) and value:
        table = cast("dict[str, Any]", value)
        return [leaf for key, child in table.items() for leaf in _flat(child, f"{path}.{key}" if path else str(key))]
    return [(path, value)]


def _said(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()
