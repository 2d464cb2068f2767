"""Evaluations as their files say it, made by hand for tests of comparisons and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.evaluate.comparing import Side
from tuneloop.evaluate.metrics import Metric, Score
from tuneloop.evaluate.metrics.exact_match import ExactMatch
from tuneloop.evaluate.metrics.f1 import F1
from tuneloop.evaluate.metrics.perplexity import Perplexity
from tuneloop.evaluate.scoring import SUMMED, statistics, summary

METRICS: dict[str, Metric] = {"exact_match": ExactMatch(), "f1": F1(), "perplexity": Perplexity()}
Values = Mapping[str, Sequence[float | None]]


def side(name: str, values: Values, start: int = 0, says: str = "answer", **slices: Sequence[str]) -> Side:
    """A run whose example i (of id `start + i`) was scored with values[metric][i]; perplexities weigh two tokens."""
    scores = {metric: [Score(one, weight=2.0) for one in given] for metric, given in values.items()}
    metrics = {metric: summary(METRICS[metric], {"tuned": given}, 0.95) for metric, given in scores.items()}
    count = len(next(iter(values.values())))
    lines = [_line(start + i, i, says, scores, slices) for i in range(count)]
    report = {"version": 1, "split": "test", "n": count, "confidence": 0.95, "metrics": metrics, "slices": {}}
    return Side(name, report, lines)


def _line(
    number: int, place: int, says: str, scores: Mapping[str, Sequence[Score]], slices: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    return {
        "id": f"{number:04}", "prompt": [{"role": "user", "content": f"question {number}"}], "reference": "answer",
        "tuned": says, "scores": {metric: {"tuned": given[place].value} for metric, given in scores.items()},
        "statistics": {
            metric: {"tuned": statistics(METRICS[metric], given[place])}
            for metric, given in scores.items() if METRICS[metric].AGGREGATION in SUMMED
        },
        "slices": {key: [given[place]] for key, given in slices.items()},
    }  # fmt: skip
