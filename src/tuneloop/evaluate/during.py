"""The metrics of the recipe on a small fixed sample, while training runs: numbers to stop by, not to report."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Contestant, answers
from tuneloop.evaluate.metrics import METRICS
from tuneloop.evaluate.observing import Observed, answer_length, observe, score
from tuneloop.evaluate.scoring import estimate, how
from tuneloop.generate.engine import Decoding


def quick_scores(
    config: EvaluateConfig, contestant: Contestant, examples: Sequence[Example]
) -> dict[str, tuple[float, bool]]:
    """Each generation metric of `evaluate.metrics` that scored anything: name → (value, whether lower is better)."""
    given = answers(contestant, examples, Decoding(answer_length(contestant, config, examples)))
    values: dict[str, tuple[float, bool]] = {}
    for metric in config.metrics:
        if metric.NEEDS != "generation":
            continue
        observations = observe(metric, examples, Observed(answers=given))
        value = estimate(how(metric), score(metric, observations), config.confidence)["value"]
        if value is not None:
            values[METRICS.name_of(metric)] = (value, metric.BETTER == "lower")
    return values
