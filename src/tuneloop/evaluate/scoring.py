"""Scores of single examples → numbers with intervals, and the paired difference of two contestants.

The shapes of this module are those of report.json. Legend: N examples, S statistics, R resamples. Every aggregation is
a function of sums over examples, so one bootstrap serves all numbers of one set of examples.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneloop.evaluate.metrics import Aggregation, Metric, Score
from tuneloop.stats import bootstrap, intervals, paired
from tuneloop.stats.multiple import holm
from tuneloop.stats.paired import Difference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tuneloop.evaluate.metrics import Array

    Bools = NDArray[np.bool_]

Json = dict[str, Any]
NOTHING: Json = {"value": None, "n": 0, "low": None, "high": None}
Scores = Mapping[str, Sequence[Score]]
"""Scores of the same examples, by contestant: `tuned`, and `base` where it took part."""
PAIR = ("base", "tuned")


@dataclass(frozen=True)
class How:
    """How scores become a number: see `metrics.Aggregation`; `combine` belongs to `corpus` alone."""

    kind: Aggregation
    bounded: bool = True
    combine: Callable[[Array], Array] | None = None
    distance: Callable[[Array, Array], Array | None] | None = None

    def numbers(self, sums_RS: Array) -> Array:
        """The numbers [R] that follow from sums of the statistics of `Scored`; NaN where nothing was scored."""
        import numpy as np

        if self.kind == "corpus":
            assert self.combine is not None
            return self.combine(sums_RS)
        means_R = bootstrap.ratio(sums_RS)
        return np.exp(means_R) if self.kind == "geometric" else means_R


PROPORTION = How("proportion")


def how(metric: Metric) -> How:
    """A metric's own way."""
    if metric.AGGREGATION != "corpus":
        return How(metric.AGGREGATION, metric.BOUNDED)
    return How("corpus", metric.BOUNDED, metric.combine, metric.distance)


class Scored(NamedTuple):
    """The scores of one contestant as arrays: which examples are scored, and the statistics of each, 0 where not.

    Statistics are (value, 1) of a proportion or mean, (weight · ln value, weight) of a geometric mean, a corpus
    metric's own otherwise.
    """

    known: Bools
    statistics: Array

    def of(self, rows: Sequence[int] | Bools | None) -> Scored:
        """Those of some examples; None for all."""
        return self if rows is None else Scored(self.known[rows], self.statistics[rows])

    def where(self, known: Bools) -> Scored:
        """The same with fewer examples scored."""
        if known.all() or (known == self.known).all():
            return self
        return Scored(known, self.statistics * known[:, None])


def arrays(way: How, scores: Sequence[Score]) -> Scored:
    """A value that is no finite number counts as not scored."""
    import numpy as np

    given = [_statistics(way, score) for score in scores]
    width = max((len(one) for one in given if one is not None), default=2)
    nothing = (0.0,) * width
    table = np.array([one if one is not None else nothing for one in given], dtype=np.float64).reshape(-1, width)
    known = np.array([one is not None for one in given], dtype=bool) & np.isfinite(table).all(axis=1)
    return Scored(known, np.where(known[:, None], table, 0.0))


def _statistics(way: How, score: Score) -> tuple[float, ...] | None:
    if score.value is None or not math.isfinite(score.value):
        return None
    if way.kind == "corpus":
        return score.statistics
    if way.kind == "geometric":
        return (math.log(score.value) * score.weight, score.weight) if score.value > 0 else None
    return score.value, 1.0


SUMMED = ("geometric", "corpus")
"""Aggregations whose number does not follow from the values of the examples alone."""


def statistics(metric: Metric, score: Score) -> list[float] | None:
    """What samples.jsonl keeps of a score beside its value where the aggregation is one of SUMMED."""
    found = _statistics(how(metric), score)
    return None if found is None else list(found)


# -- many numbers from one bootstrap ----------------------------------------------------------------------------------
@dataclass
class _Columns:
    """Statistics that wait to be resampled together."""

    blocks: list[Array] = field(default_factory=list["Array"])
    width: int = 0

    def add(self, block_NS: Array) -> slice:
        self.blocks.append(block_NS)
        self.width += block_NS.shape[1]
        return slice(self.width - block_NS.shape[1], self.width)

    def sums(self) -> Array | None:
        import numpy as np

        return bootstrap.resampled_sums(np.concatenate(self.blocks, axis=1)) if self.blocks else None


class Measured(NamedTuple):
    """Numbers of one metric on one set of examples."""

    values: dict[str, Json]
    """By contestant: {"value", "n", "low", "high"}."""
    differences: dict[tuple[str, str], Json]
    """Second minus first, on the examples that both scored: the same and "p"."""


def measure(
    given: Mapping[str, tuple[How, Mapping[str, Scored]]],
    confidence: float,
    pairs: Sequence[tuple[str, str]] = (PAIR,),
    rows: Sequence[int] | Bools | None = None,
) -> dict[str, Measured]:
    """The numbers of all metrics of `given` on the examples `rows`, and the differences of all pairs that took part."""
    columns = _Columns()
    values: dict[tuple[str, str], _Estimate] = {}
    differences: dict[tuple[str, tuple[str, str]], _Change] = {}
    for name, (way, scored) in given.items():
        chosen = {who: one.of(rows) for who, one in scored.items()}
        for who, one in chosen.items():
            values[name, who] = _Estimate(way, one, columns, confidence)
        for pair in pairs:
            if all(who in chosen for who in pair):
                differences[name, pair] = _Change(way, chosen[pair[0]], chosen[pair[1]], columns, confidence)
    sums_RS = columns.sums()
    found = {name: Measured({}, {}) for name in given}
    for (name, who), estimated in values.items():
        found[name].values[who] = estimated.result(sums_RS)
    for (name, pair), changed in differences.items():
        found[name].differences[pair] = changed.result(sums_RS)
    return found


def measure_parts(
    given: Mapping[str, tuple[How, Mapping[str, Scored]]],
    parts: Mapping[str, Mapping[str, Sequence[int]]],
    confidence: float,
    pairs: Sequence[tuple[str, str]] = (PAIR,),
) -> dict[str, dict[str, dict[str, Measured]]]:
    """`measure` of every part, several at a time: drawing and adding up leave Python's lock alone."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {
            key: {value: pool.submit(measure, given, confidence, pairs, rows) for value, rows in values.items()}
            for key, values in parts.items()
        }
        return {key: {value: one.result() for value, one in values.items()} for key, values in waiting.items()}


class _Estimate:
    """One contestant's number: takes its columns into the bootstrap, then reads the resampled sums."""

    def __init__(self, way: How, scored: Scored, columns: _Columns, confidence: float) -> None:
        self.way, self.scored, self.confidence = way, scored, confidence
        self.n = int(scored.known.sum())
        self.place = columns.add(scored.statistics) if self.n and way.kind != "proportion" else None

    def result(self, sums_RS: Array | None) -> Json:
        import numpy as np

        if not self.n:
            return dict(NOTHING)
        whole_1S = self.scored.statistics.sum(axis=0, keepdims=True)
        value = float(self.way.numbers(whole_1S)[0])
        if not np.isfinite(value):
            return {**NOTHING, "n": self.n}
        if self.place is None or sums_RS is None:
            low, high = intervals.wilson(round(float(whole_1S[0, 0])), self.n, self.confidence)
        else:
            low, high = self._interval(sums_RS[:, self.place], whole_1S, value)
            if self.way.kind in ("mean", "corpus") and low == high and self.way.bounded:
                # the bootstrap sees no spread; scores in [0, 1] vary at most as 0/1 ones do
                low, high = intervals.wilson(min(1.0, max(0.0, value)) * self.n, self.n, self.confidence)
        return {"value": value, "n": self.n, "low": low, "high": high}

    def _interval(self, sums_RS: Array, whole_1S: Array, value: float) -> tuple[float, float]:
        import numpy as np

        away_R = self.way.distance(sums_RS, whole_1S) if self.way.distance is not None else None
        if away_R is None:
            scored_NS = self.scored.statistics[self.scored.known]
            return intervals.bca(scored_NS, self.way.numbers, self.way.numbers(sums_RS), self.confidence)
        away = float(np.quantile(away_R[np.isfinite(away_R)], self.confidence))
        return (max(0.0, value - away), min(1.0, value + away)) if self.way.bounded else (value - away, value + away)


class _Change:
    """The paired difference of two contestants on the examples that both scored."""

    def __init__(self, way: How, first: Scored, second: Scored, columns: _Columns, confidence: float) -> None:
        self.both = first.known & second.known
        self.way, self.confidence, self.n = way, confidence, int(self.both.sum())
        self.first, self.second = first.where(self.both), second.where(self.both)
        self.same = bool((self.first.statistics == self.second.statistics).all())
        self.places: tuple[slice, slice] | None = None
        if self.n and not self.same and way.kind != "proportion":
            self.places = columns.add(self.first.statistics), columns.add(self.second.statistics)

    def result(self, sums_RS: Array | None) -> Json:
        import numpy as np

        if not self.n:
            return {**NOTHING, "p": None}
        if self.way.kind == "proportion":
            right = [one.statistics[self.both, 0] > 0.5 for one in (self.first, self.second)]
            found = paired.compare_proportions(right[0], right[1], self.confidence)
        elif self.places is None or sums_RS is None:
            found = Difference(0.0, -self._unseen(), self._unseen(), 1.0)
        else:
            found = self._resampled(sums_RS, self.places)
        if not np.isfinite(found.value):
            return {**NOTHING, "n": self.n, "p": None}
        return {"value": found.value, "n": self.n, "low": found.low, "high": found.high, "p": found.p}

    def _unseen(self) -> float:
        """The most that scores in [0, 1] may still differ by where n of n are equal: a change that n examples do not
        show happens to fewer than 1 - (alpha / 2)^(1/n) of all (Clopper and Pearson 1934; the rule of three)."""
        bounded = self.way.kind == "mean" and self.way.bounded
        return 1 - ((1 - self.confidence) / 2) ** (1 / self.n) if bounded else 0.0

    def _resampled(self, sums_RS: Array, places: tuple[slice, slice]) -> Difference:
        whole = [one.statistics.sum(axis=0, keepdims=True) for one in (self.first, self.second)]
        resampled = [sums_RS[:, place] for place in places]

        def change(of: Callable[[Array], Array], sums: Sequence[Array]) -> Array:
            return of(sums[1]) - of(sums[0])

        tested = None
        if self.way.kind == "geometric":  # the bootstrap's symmetry holds better before the exponential
            tested = float(change(bootstrap.ratio, whole)[0]), change(bootstrap.ratio, resampled)
        value = float(change(self.way.numbers, whole)[0])
        return paired.of_resamples(value, change(self.way.numbers, resampled), self.confidence, tested)


# -- base and tuned ---------------------------------------------------------------------------------------------------
def summary(metric: Metric, scores: Scores, confidence: float) -> Json:
    """One metric: the number of each contestant, their difference, and how many were not scored for which reason."""
    return facts(metric, scores) | compare(how(metric), scores, confidence)


def facts(metric: Metric, scores: Scores) -> Json:
    """What is said of a metric beside its numbers; `options` make the same metric again."""
    return {
        "better": metric.BETTER,
        "signature": metric.signature,
        "aggregation": metric.AGGREGATION,
        "bounded": metric.BOUNDED,
        "options": metric.model_dump(mode="json"),
        "unscored": {
            name: dict(Counter(score.why or "no reason given" for score in given if score.value is None))
            for name, given in scores.items()
        },
    }


def compare(way: How, scores: Scores, confidence: float) -> Json:
    """{"base": …, "tuned": …, "difference": …}; a difference needs both, on the examples that both scored."""
    scored = {name: arrays(way, given) for name, given in scores.items()}
    return entry(measure({"": (way, scored)}, confidence)[""])


def entry(found: Measured) -> Json:
    """The numbers of base and tuned in the shape of report.json."""
    return {**found.values, **({"difference": found.differences[PAIR]} if PAIR in found.differences else {})}


def by_slice(
    given: Mapping[str, tuple[How, Mapping[str, Scored]]],
    parts: Mapping[str, Mapping[str, Sequence[int]]],
    confidence: float,
) -> dict[str, dict[str, dict[str, Json]]]:
    """Key → value → metric → numbers; `p_holm` is each metric's p corrected over all slices of all keys."""
    measured = measure_parts(given, parts, confidence)
    found = {
        key: {value: {name: entry(one) for name, one in numbers.items()} for value, numbers in values.items()}
        for key, values in measured.items()
    }
    for name in given:
        correct([numbers[name].get("difference") for values in found.values() for numbers in values.values()])
    return found


def correct(differences: Sequence[Json | None]) -> None:
    """Adds Holm's `p_holm` to each difference, over those that have a p."""
    tested = [one for one in differences if one is not None and one["p"] is not None]
    for one, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one["p_holm"] = p
    for one in differences:
        if one is not None:
            one.setdefault("p_holm", None)


def estimate(way: How, scores: Sequence[Score], confidence: float) -> Json:
    """{"value", "n", "low", "high"} over the scored examples; all null where there are none."""
    return measure({"": (way, {"": arrays(way, scores)})}, confidence)[""].values[""]


def picked(scores: Scores, indices: Sequence[int]) -> dict[str, list[Score]]:
    """The scores of some of the examples."""
    return {name: [given[index] for index in indices] for name, given in scores.items()}


def groups(metas: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[int]]:
    """Indices by the value of a meta key, sorted; rows without it are not in any group."""
    found: dict[str, list[int]] = {}
    for index, meta in enumerate(metas):
        if meta.get(key) is not None:
            found.setdefault(str(meta[key]), []).append(index)
    return dict(sorted(found.items()))
