"""Scores of single examples → numbers with intervals, and the paired difference of base and tuned.

The shapes of this module are those of report.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.evaluate.metrics import Aggregation, Metric, Score
from tuneloop.stats import intervals, paired

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array

Json = dict[str, Any]
NOTHING: Json = {"value": None, "n": 0, "low": None, "high": None}
Scores = Mapping[str, Sequence[Score]]
"""Scores of the same examples, by contestant: `tuned`, and `base` where it took part."""


@dataclass(frozen=True)
class How:
    """How scores become a number: see `metrics.Aggregation`; `combine` belongs to `corpus` alone."""

    kind: Aggregation
    bounded: bool = True
    combine: Callable[[Array], Array] | None = None


PROPORTION = How("proportion")


def how(metric: Metric) -> How:
    """A metric's own way."""
    return How(metric.AGGREGATION, metric.BOUNDED, metric.combine if metric.AGGREGATION == "corpus" else None)


def summary(metric: Metric, scores: Scores, confidence: float) -> Json:
    """One metric: the number of each contestant, their difference, and how many were not scored for which reason."""
    out: Json = {"better": metric.BETTER, "signature": metric.signature, "aggregation": metric.AGGREGATION}
    out |= compare(how(metric), scores, confidence)
    out["unscored"] = {
        name: dict(Counter(score.why or "no reason given" for score in given if score.value is None))
        for name, given in scores.items()
    }
    return out


def compare(way: How, scores: Scores, confidence: float) -> Json:
    """{"base": …, "tuned": …, "difference": …}; a difference needs both, on the examples that both scored."""
    out: Json = {name: estimate(way, given, confidence) for name, given in scores.items()}
    if "base" in scores and "tuned" in scores:
        out["difference"] = difference(way, scores["base"], scores["tuned"], confidence)
    return out


def estimate(way: How, scores: Sequence[Score], confidence: float) -> Json:
    """{"value", "n", "low", "high"} over the scored examples; all null where there are none."""
    import numpy as np

    scored = [score for score in scores if score.value is not None]
    if not scored:
        return dict(NOTHING)
    values, n = [score.value or 0.0 for score in scored], len(scored)
    if way.kind == "proportion":
        value, (low, high) = sum(values) / n, intervals.wilson(round(sum(values)), n, confidence)
    elif way.kind == "mean":
        value, (low, high) = sum(values) / n, intervals.bootstrap_mean(values, confidence)
        if low == high and way.bounded:  # the bootstrap sees no spread; scores in [0, 1] vary at most as 0/1 ones do
            low, high = intervals.wilson(min(float(n), sum(values)), n, confidence)
    elif way.kind == "geometric":
        weights = [score.weight for score in scored]
        logs = np.log(values) * weights
        value = float(np.exp(logs.sum() / sum(weights)))
        low, high = (float(np.exp(end)) for end in intervals.bootstrap_ratio(logs, weights, confidence))
    else:
        assert way.combine is not None
        statistics_NS = _statistics(scored)
        value = float(way.combine(statistics_NS.sum(axis=0, keepdims=True))[0])
        low, high = intervals.bootstrap_sums(statistics_NS, way.combine, confidence)
    return {"value": value, "n": n, "low": low, "high": high} if np.isfinite(value) else {**NOTHING, "n": n}


def difference(way: How, base: Sequence[Score], tuned: Sequence[Score], confidence: float) -> Json:
    """{"value", "n", "low", "high", "p"} of tuned minus base over the examples that both scored."""
    import numpy as np

    pairs = [(a, b) for a, b in zip(base, tuned, strict=True) if a.value is not None and b.value is not None]
    if not pairs:
        return {**NOTHING, "p": None}
    first, second = [a.value or 0.0 for a, _ in pairs], [b.value or 0.0 for _, b in pairs]
    if way.kind == "proportion":
        found = paired.compare_proportions([v > 0.5 for v in first], [v > 0.5 for v in second], confidence)
    elif way.kind == "mean":
        found = paired.compare_means(first, second, confidence)
    elif way.kind == "geometric":
        logs = [(float(np.log(v)) * a.weight, a.weight) for v, (a, _) in zip(first, pairs, strict=True)]
        other = [(float(np.log(v)) * b.weight, b.weight) for v, (_, b) in zip(second, pairs, strict=True)]
        found = paired.compare_ratios(logs, other, confidence, scale=np.exp)
    else:
        assert way.combine is not None
        first_NS, second_NS = _statistics([a for a, _ in pairs]), _statistics([b for _, b in pairs])
        found = paired.compare_sums(first_NS, second_NS, way.combine, confidence)
    if not np.isfinite(found.value):
        return {**NOTHING, "n": len(pairs), "p": None}
    return {"value": found.value, "n": len(pairs), "low": found.low, "high": found.high, "p": found.p}


def _statistics(scores: Sequence[Score]) -> Array:
    """[N, S] statistics of scored examples."""
    import numpy as np

    return np.asarray([score.statistics for score in scores], dtype=np.float64)


def groups(metas: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[int]]:
    """Indices by the value of a meta key (`a+b` combines keys), sorted; rows without it are not in any group."""
    found: dict[str, list[int]] = {}
    for index, meta in enumerate(metas):
        values = [meta.get(part) for part in key.split("+")]
        if all(value is not None for value in values):
            found.setdefault(" · ".join(map(str, values)), []).append(index)
    return dict(sorted(found.items()))


def picked(scores: Scores, indices: Sequence[int]) -> dict[str, list[Score]]:
    """The scores of some of the examples."""
    return {name: [given[index] for index in indices] for name, given in scores.items()}
