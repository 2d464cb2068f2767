"""The metrics of the recipe on a small fixed sample, while training runs: numbers to stop by, not to report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Contestant, answers, likelihoods
from tuneloop.evaluate.metrics import METRICS, Better, Metric, Score
from tuneloop.evaluate.observing import Observed, answer_length, draw, observe, score, weigh_choices
from tuneloop.evaluate.scoring import How, how
from tuneloop.generate.engine import Decoding

Values = dict[str, tuple[float, bool | None]]
"""Name → (value, whether lower is better; None where neither is)."""
LOWER: dict[Better, bool | None] = {"lower": True, "higher": False, "neither": None}


def measured(config: EvaluateConfig, names: Sequence[str] | None, stop_by: str | None = None) -> list[Metric]:
    """The metrics of `evaluate.metrics` that are measured while training runs: those named, and the one to stop by.

    Without names all but the costly ones, which take several samples an answer or ask a judge. Raises ValueError for a
    name that is none of `evaluate.metrics`, and for a metric to stop by that has no better end.
    """
    given = {METRICS.name_of(metric): metric for metric in config.metrics}
    if names is None:
        names = [name for name, metric in given.items() if metric.NEEDS != "samples" and not metric.SLOW]
    wanted: dict[str, None] = dict.fromkeys(names)
    if stop_by:
        wanted[stop_by] = None
    unknown = [name for name in wanted if name not in given]
    if unknown:
        raise ValueError(
            f"'{unknown[0]}' is to be measured while training runs, but evaluate.metrics has only {', '.join(given)}: "
            f"add it there"
        )
    if stop_by and given[stop_by].BETTER == "neither":
        ends = [name for name, metric in given.items() if metric.BETTER != "neither"]
        raise ValueError(
            f"early_stopping.metric: of {stop_by} neither more nor less is better, so no checkpoint is the best by it; "
            f"stop by {' or '.join(['loss', *ends])}"
        )
    return [given[name] for name in wanted]


def quick_scores(
    config: EvaluateConfig, metrics: Sequence[Metric], contestant: Contestant, examples: Sequence[Example]
) -> tuple[Values, list[dict[str, Any]]]:
    """The value of each metric that scored anything, without an interval; and each example with answer and scores.

    Quiet: a bar of the training is on the console already. Without a metric that needs answers there are none.
    """
    observed = _ask(config, metrics, contestant, examples)
    scores: dict[str, list[Score]] = {}
    values: Values = {}
    for metric in metrics:
        name = METRICS.name_of(metric)
        scores[name] = score(metric, observe(metric, examples, observed))
        value = point(how(metric), scores[name])
        if value is not None:
            values[name] = (value, LOWER[metric.BETTER])
    lines = [
        {
            "id": example.id,
            "prompt": [message.to_json() for message in example.prompt],
            "reference": example.answer.content,
            "answer": answer.text,
            "scores": {name: given[place].value for name, given in scores.items()},
        }
        for place, (example, answer) in enumerate(zip(examples, observed.answers, strict=False))
    ]
    return values, lines


def point(way: How, scores: Sequence[Score]) -> float | None:
    """The number alone, as `scoring.estimate` has it, without the bootstrap of an interval; None for no such number."""
    import numpy as np

    scored = [score for score in scores if score.value is not None]
    if not scored:
        return None
    if way.combine is not None:
        sums_S = np.asarray([score.statistics for score in scored], dtype=np.float64).sum(axis=0)
        value = float(way.combine(sums_S[None])[0])
    else:
        values = np.asarray([score.value for score in scored])
        if way.kind == "geometric":
            value = float(np.exp(np.average(np.log(values), weights=[score.weight for score in scored])))
        else:
            value = float(values.mean())
    return value if np.isfinite(value) else None


def _ask(
    config: EvaluateConfig, metrics: Sequence[Metric], contestant: Contestant, examples: Sequence[Example]
) -> Observed:
    needs = {metric.NEEDS for metric in metrics}
    found = Observed()
    if "likelihood" in needs:
        found.likelihoods = likelihoods(contestant, examples)
    if "choices" in needs:
        found.choices = weigh_choices(contestant, examples)
    if needs & {"generation", "samples"}:
        limit = answer_length(contestant, config, examples)
        if "generation" in needs:
            found.answers = answers(contestant, examples, Decoding(limit))
        for sampling in {metric.sampling for metric in metrics if metric.sampling}:
            found.samples[sampling] = draw(contestant, examples, sampling, limit)
    return found
