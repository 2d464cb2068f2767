"""Finished evaluations side by side, on the examples that all of them asked: numbers, differences, wins and losses.

Knows the shapes of report.json and samples.jsonl, not where they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.core import digest
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean, listed
from tuneloop.evaluate.metrics import METRICS, Score
from tuneloop.evaluate.scoring import SUMMED, How, Measured, Scored, arrays, correct, measure, measure_parts

Json = dict[str, Any]
VERSION = 1
LISTED = 100  # wins and losses with their texts; the counts are of all


@dataclass(frozen=True)
class Side:
    """One contestant of one evaluation; `who` is `tuned`, or `base` where a run is held against its own base."""

    name: str
    report: Json
    samples: Sequence[Json]
    who: str = "tuned"


@dataclass(frozen=True)
class Wanted:
    """What is compared; empty: everything."""

    metrics: Sequence[str] = ()
    slices: Sequence[str] = ()
    """Keys of slices, or `key=value`: only the examples in that slice."""


@dataclass(frozen=True)
class Comparison:
    """All sides on the shared examples. The first side is the reference of every difference."""

    sides: Sequence[Side]
    lines: Sequence[Sequence[Json]]
    """Of each shared example its line of samples.jsonl on each side."""
    facts: dict[str, Json]
    """Metric → the reference's entry of report.json."""
    given: dict[str, tuple[How, dict[str, Scored]]]
    parts: dict[str, dict[str, list[int]]]
    only: tuple[str, ...] = ()
    """The slices to which the examples are restricted."""
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Metrics that are not compared, and why."""

    @property
    def confidence(self) -> float:
        return self.sides[0].report["confidence"]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(self.sides[0].name, side.name) for side in self.sides[1:]]

    def measured(self, confidence: float) -> dict[str, Measured]:
        """The numbers of all sides and their differences to the reference."""
        return measure(self.given, confidence, self.pairs)

    def to_json(self) -> Json:
        """compare.json without what belongs to run folders."""
        metrics = {name: _entry(found) for name, found in self.measured(self.confidence).items()}
        for name, entry in metrics.items():
            known = ("better", "signature", "aggregation", "bounded")
            entry |= {key: self.facts[name][key] for key in known if key in self.facts[name]}
        return {
            "version": VERSION,
            "reference": self.sides[0].name,
            "runs": {side.name: {"n": len(side.samples)} for side in self.sides},
            "shared": len(self.lines),
            "only": list(self.only),
            "confidence": self.confidence,
            "metrics": metrics,
            "left_out": self.left_out,
            "slices": self._by_slice(),
            "changed": self._changed(),
        }

    def _by_slice(self) -> dict[str, dict[str, dict[str, Json]]]:
        """As `scoring.by_slice`; p is corrected over all slices, for each metric and run."""
        measured = measure_parts(self.given, self.parts, self.confidence, self.pairs)
        found = {
            key: {value: {name: _entry(one) for name, one in numbers.items()} for value, numbers in values.items()}
            for key, values in measured.items()
        }
        for name in self.given:
            for side in self.sides[1:]:
                entries = [numbers[name] for values in found.values() for numbers in values.values()]
                correct([entry["differences"][side.name] for entry in entries])
        return found

    def _changed(self) -> dict[str, Json]:
        """By run, what it won and lost against the reference by the first metric that tells answers apart."""
        metric = judge_of(self.facts)
        if metric is None:
            return {}
        return {side.name: self._against(place, side, metric) for place, side in enumerate(self.sides) if place}

    def _against(self, place: int, side: Side, metric: str) -> Json:
        sign = -1 if self.facts[metric]["better"] == "lower" else 1
        counts: Counter[str] = Counter(dict.fromkeys(("won", "lost", "even", "unscored"), 0))
        moved: list[tuple[float, str, Json]] = []
        for lines in self.lines:
            before, after = _value(lines[0], metric, self.sides[0].who), _value(lines[place], metric, side.who)
            if before is None or after is None:
                counts["unscored"] += 1
                continue
            gain = sign * (after - before)
            counts["won" if gain > 0 else "lost" if gain < 0 else "even"] += 1
            if gain:
                line = {key: lines[0].get(key) for key in ("id", "prompt", "reference")}
                line["first"], line["second"] = lines[0].get(self.sides[0].who), lines[place].get(side.who)
                line["scores"] = [before, after]
                moved.append((gain, digest.of_value(line["id"]), line))
        moved.sort(key=lambda one: (-abs(one[0]), one[1]))
        return {
            "metric": metric, **counts,
            "wins": [line for gain, _, line in moved if gain > 0][:LISTED],
            "losses": [line for gain, _, line in moved if gain < 0][:LISTED],
        }  # fmt: skip


def judge_of(facts: Mapping[str, Json]) -> str | None:
    """The first metric that looks at one answer and knows which is better."""
    known = METRICS.names()
    named = [name for name, entry in facts.items() if entry["better"] != "neither"]
    answers = [name for name in named if name in known and METRICS.load(name).NEEDS == "generation"]
    return next(iter([*answers, *named]), None)


def _entry(found: Measured) -> Json:
    return {"values": found.values, "differences": {second: one for (_, second), one in found.differences.items()}}


def _value(line: Json, metric: str, who: str) -> float | None:
    return line.get("scores", {}).get(metric, {}).get(who)


# -- what can be compared ---------------------------------------------------------------------------------------------
def align(sides: Sequence[Side], wanted: Wanted = Wanted()) -> Comparison:
    """Raises DataError for reports of another version, metrics of different signatures, nothing in common."""
    if len(sides) < 2:
        raise DataError("nothing to compare with: name a second run, or one that was evaluated with its base")
    for side in sides:
        version = side.report.get("version")
        if version != VERSION:
            raise DataError(f"{side.name}: its report.json has version {version!r}, and this tuneloop reads {VERSION}")
    facts, left_out = _metrics(sides, wanted.metrics)
    lines = _shared(sides)
    parts = _parts(lines)
    only = tuple(one for one in wanted.slices if "=" in one)
    for one in only:
        key, _, value = one.partition("=")
        rows = _known(key, parts).get(value)
        if rows is None:
            raise DataError(f"--slice {one}: no shared example is in it; there are: {listed(list(parts[key]))}")
        lines = [lines[row] for row in rows]
        parts = _parts(lines)
    keys = [one for one in wanted.slices if "=" not in one]
    chosen = {key: _known(key, parts) for key in keys} if wanted.slices else parts
    given = {name: _scored(name, entry, sides, lines) for name, entry in facts.items()}
    return Comparison(sides, lines, facts, given, chosen, only, left_out)


def _metrics(sides: Sequence[Side], wanted: Sequence[str]) -> tuple[dict[str, Json], dict[str, str]]:
    """The metrics that all sides have, and those that only some have; equal signatures or an error."""
    reports = {side.name: side.report["metrics"] for side in sides}
    names = list(dict.fromkeys(name for metrics in reports.values() for name in metrics))
    for name in wanted:
        if name not in names:
            raise DataError(f"no run has the metric '{name}'{did_you_mean(name, names)}; there are: {', '.join(names)}")
    facts: dict[str, Json] = {}
    left_out: dict[str, str] = {}
    for name in wanted or names:
        lacking = [run for run, metrics in reports.items() if name not in metrics]
        if lacking:
            if name in wanted:
                raise DataError(f"{name}: not measured by {', '.join(lacking)}; add it to evaluate.metrics there")
            left_out[name] = f"not measured by {', '.join(lacking)}"
            continue
        first = sides[0]
        for side in sides[1:]:
            ours, theirs = reports[first.name][name]["signature"], reports[side.name][name]["signature"]
            if ours != theirs:
                raise DataError(
                    f"{name} is not the same measure in both runs:\n  {first.name}: {ours}\n  {side.name}: {theirs}\n"
                    "Evaluate both with the same options, or compare the others: --metric NAME"
                )
        facts[name] = reports[first.name][name]
    if not facts:
        raise DataError(f"the runs have no metric in common: {'; '.join(f'{k}: {v}' for k, v in left_out.items())}")
    return facts, left_out


def _shared(sides: Sequence[Side]) -> list[list[Json]]:
    """The lines of the examples that all sides have, in the reference's order; equal ones are told apart by number."""
    tables = [_keyed(side.samples) for side in sides]
    shared = [key for key in tables[0] if all(key in table for table in tables[1:])]
    if not shared:
        counts = ", ".join(f"{side.name}: {len(side.samples)}" for side in sides)
        raise DataError(
            f"the runs have no example in common ({counts}): they asked different questions, and their numbers do not "
            "compare. Evaluate both on the same test rows."
        )
    return [[table[key] for table in tables] for key in shared]


def _keyed(samples: Sequence[Json]) -> dict[tuple[str, int], Json]:
    seen: Counter[str] = Counter()
    found: dict[tuple[str, int], Json] = {}
    for line in samples:
        found[line["id"], seen[line["id"]]] = line
        seen[line["id"]] += 1
    return found


def _parts(lines: Sequence[Sequence[Json]]) -> dict[str, dict[str, list[int]]]:
    """Slices of the shared examples as the first run that cut by a key has written them."""
    found: dict[str, dict[str, list[int]]] = {}
    for place, sides in enumerate(lines):
        members: dict[str, list[str]] = {}
        for line in reversed(sides):
            members |= line.get("slices", {})
        for key, values in members.items():
            for value in values:
                found.setdefault(key, {}).setdefault(value, []).append(place)
    return {key: dict(sorted(values.items(), key=lambda item: _order(item[0]))) for key, values in found.items()}


def _order(value: str) -> tuple[int, str]:
    """Lengths and yes before no as the report has them, all else by the alphabet."""
    first = ("short (", "medium (", "long (", "yes", "no")
    return next((rank for rank, start in enumerate(first) if value.startswith(start)), 0), value


def _known(key: str, parts: Mapping[str, dict[str, list[int]]]) -> dict[str, list[int]]:
    if key not in parts:
        there = f"; there are: {', '.join(parts)}" if parts else "; the runs were evaluated without evaluate.slices"
        raise DataError(f"--slice {key}: no such slice{did_you_mean(key, parts)}{there}")
    return parts[key]


def _scored(
    name: str, entry: Json, sides: Sequence[Side], lines: Sequence[Sequence[Json]]
) -> tuple[How, dict[str, Scored]]:
    """The arrays of one metric from the lines of samples.jsonl."""
    way = How(entry["aggregation"], entry.get("bounded", True), _combine(name, entry))
    found: dict[str, Scored] = {}
    for place, side in enumerate(sides):
        mine = [row[place] for row in lines]
        scores = [_score(name, way, line, side) for line in mine]
        found[side.name] = arrays(way, scores)
    return way, found


def _combine(name: str, entry: Json) -> Any:
    if entry["aggregation"] != "corpus":
        return None
    return METRICS.make({name: entry.get("options", {})}).combine


def _score(name: str, way: How, line: Json, side: Side) -> Score:
    value = _value(line, name, side.who)
    if value is None or way.kind not in SUMMED:
        return Score(value)
    kept = line.get("statistics", {}).get(name, {}).get(side.who)
    if kept is None:
        raise DataError(
            f"{side.name}: samples.jsonl has no statistics of {name} (written by an older tuneloop); evaluate again "
            "(tuneloop evaluate RECIPE --again), or compare the others: --metric NAME"
        )
    return Score(value, weight=kept[1], statistics=tuple(kept)) if way.kind == "corpus" else _weighted(kept)


def _weighted(kept: Sequence[float]) -> Score:
    """A geometric score from its statistics (weight · ln value, weight)."""
    import math

    total, weight = kept
    return Score(math.exp(total / weight), weight=weight) if weight else Score(None, "no weight")
