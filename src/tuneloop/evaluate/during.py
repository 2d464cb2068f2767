"""The metrics of the recipe on a small fixed sample, while training runs: numbers to stop by, not to report."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Contestant, answers
from tuneloop.evaluate.evaluate import answer_length, score_answers
from tuneloop.evaluate.metrics import METRICS
from tuneloop.evaluate.scoring import estimate


def quick_scores(
    config: EvaluateConfig, contestant: Contestant, examples: Sequence[Example]
) -> dict[str, tuple[float, bool]]:
    """Each generation metric of `evaluate.metrics` that scored anything: name → (value, whether lower is better)."""
    given = answers(contestant, examples, answer_length(contestant, config, examples))
    values: dict[str, tuple[float, bool]] = {}
    for metric in config.metrics:
        if metric.NEEDS != "generation":
            continue
        value = estimate(metric.AGGREGATION, score_answers(metric, examples, given), config.confidence)["value"]
        if value is not None:
            values[METRICS.name_of(metric)] = (value, metric.BETTER == "lower")
    return values
