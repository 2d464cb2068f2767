"""Scores of single examples → numbers with intervals, and the paired difference of base and tuned.

The shapes of this module are those of report.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.evaluate.metrics import Aggregation, Metric, Score
from tuneloop.stats import intervals, paired

Json = dict[str, Any]
Scores = Mapping[str, Sequence[Score]]
"""Scores of the same examples, by contestant: `tuned`, and `base` where it took part."""


def summary(metric: Metric, scores: Scores, confidence: float) -> Json:
    """One metric: the number of each contestant, their difference, and how many were not scored for which reason."""
    out: Json = {"better": metric.BETTER, "signature": metric.signature, "aggregation": metric.AGGREGATION}
    out |= compare(metric.AGGREGATION, scores, confidence)
    out["unscored"] = {
        name: dict(Counter(score.why or "no reason given" for score in given if score.value is None))
        for name, given in scores.items()
    }
    return out


def compare(kind: Aggregation, scores: Scores, confidence: float) -> Json:
    """{"base": …, "tuned": …, "difference": …}; a difference needs both, on the examples that both scored."""
    out: Json = {name: estimate(kind, given, confidence) for name, given in scores.items()}
    if "base" in scores and "tuned" in scores:
        out["difference"] = difference(kind, scores["base"], scores["tuned"], confidence)
    return out


def estimate(kind: Aggregation, scores: Sequence[Score], confidence: float) -> Json:
    """{"value", "n", "low", "high"} over the scored examples; all null where there are none."""
    import numpy as np

    scored = [(score.value, score.weight) for score in scores if score.value is not None]
    if not scored:
        return {"value": None, "n": 0, "low": None, "high": None}
    values, weights = [value for value, _ in scored], [weight for _, weight in scored]
    n, total = len(values), sum(values)
    if kind == "proportion":
        value, (low, high) = total / n, intervals.wilson(round(total), n, confidence)
    elif kind == "mean":
        value, (low, high) = total / n, intervals.bootstrap_mean(values, confidence)
        if low == high:  # all equal: the bootstrap sees no spread, while scores in [0, 1] vary at most as 0/1 ones do
            low, high = intervals.wilson(min(float(n), total), n, confidence)
    else:
        logs = np.log(values) * weights
        value = float(np.exp(logs.sum() / sum(weights)))
        low, high = (float(np.exp(end)) for end in intervals.bootstrap_ratio(logs, weights, confidence))
    return {"value": value, "n": n, "low": low, "high": high}


def difference(kind: Aggregation, base: Sequence[Score], tuned: Sequence[Score], confidence: float) -> Json:
    """{"value", "n", "low", "high", "p"} of tuned minus base over the examples that both scored."""
    import numpy as np

    pairs = [(a, b) for a, b in zip(base, tuned, strict=True) if a.value is not None and b.value is not None]
    if not pairs:
        return {"value": None, "n": 0, "low": None, "high": None, "p": None}
    first, second = [a.value or 0.0 for a, _ in pairs], [b.value or 0.0 for _, b in pairs]
    if kind == "proportion":
        found = paired.compare_proportions([v > 0.5 for v in first], [v > 0.5 for v in second], confidence)
    elif kind == "mean":
        found = paired.compare_means(first, second, confidence)
    else:
        logs = [(float(np.log(v)) * a.weight, a.weight) for v, (a, _) in zip(first, pairs, strict=True)]
        other = [(float(np.log(v)) * b.weight, b.weight) for v, (_, b) in zip(second, pairs, strict=True)]
        found = paired.compare_ratios(logs, other, confidence, scale=np.exp)
    return {"value": found.value, "n": len(pairs), "low": found.low, "high": found.high, "p": found.p}


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
