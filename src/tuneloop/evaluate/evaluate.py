"""The stage: asks base and tuned the same questions, scores them pair by pair, writes samples and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.core.runs import Run
from tuneloop.evaluate import forgetting, report
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Answer, Contestant, Entrant, Likelihood, answers, likelihoods
from tuneloop.evaluate.metrics import METRICS, Metric, Observation, Score
from tuneloop.evaluate.report import Context, Report
from tuneloop.evaluate.scoring import compare, groups, picked, summary
from tuneloop.track.console import progress, say

MOST_LABELS = 20  # more distinct references than this are no set of classes


@dataclass
class _Observed:
    """Everything that one contestant did."""

    answers: list[Answer] = field(default_factory=list)
    likelihoods: list[Likelihood] = field(default_factory=list)
    completions: list[Answer] = field(default_factory=list)
    max_new_tokens: int | None = None


def evaluate(
    config: EvaluateConfig,
    examples: Sequence[Example],
    entrants: Mapping[str, Entrant],
    run: Run,
    context: Context | None = None,
) -> Report:
    """Measures `entrants["tuned"]` and, where given and wanted, `entrants["base"]`, one after the other.

    Writes samples.jsonl, report.json, report.md and report.html into `run.out`; `context` is what the pages show
    beside the numbers. Raises DataError when there is nothing to ask.
    """
    if not examples:
        raise DataError(f"the {config.split} split is empty: nothing to evaluate; give evaluate.split or data.split")
    chosen = choose(examples, config.limit, "evaluate")
    probes: list[Example] = []
    if config.forgetting is not None:
        probes = choose(forgetting.load_probes(config.forgetting), config.forgetting.limit, "evaluate")
    names = [name for name in ("base", "tuned") if name in entrants and (name == "tuned" or config.base)]
    observed: dict[str, _Observed] = {}
    for name in names:
        with entrants[name]() as contestant:
            observed[name] = _observe(name, contestant, config, chosen, probes)
    scores = {name: _scores(config, chosen, who) for name, who in observed.items()}
    found = Report(_report(config, chosen, probes, observed, scores), _samples(config, chosen, observed, scores))
    jsonl.write_lines(run.out / "samples.jsonl", found.samples)
    jsonl.write(run.out / "report.json", found.value)
    report.write_pages(run.out, found, context or Context())
    return found


def _observe(
    name: str, contestant: Contestant, config: EvaluateConfig, examples: Sequence[Example], probes: Sequence[Example]
) -> _Observed:
    needs = {metric.NEEDS for metric in config.metrics}
    out = _Observed()
    if "likelihood" in needs:
        with progress(f"{name}: likelihoods", len(examples)) as bar:
            out.likelihoods = likelihoods(contestant, examples, bar.advance)
    if "generation" in needs:
        out.max_new_tokens = answer_length(contestant, config, examples)
        if config.max_new_tokens == "auto":
            say(f"{name}: answers may have {out.max_new_tokens} tokens (twice the longest reference plus 8)")
        with progress(f"{name}: answers", len(examples)) as bar:
            out.answers = answers(contestant, examples, out.max_new_tokens, bar.advance)
    if probes and config.forgetting is not None:
        with progress(f"{name}: known facts", len(probes)) as bar:
            out.completions = answers(contestant, probes, config.forgetting.max_new_tokens, bar.advance)
    return out


def answer_length(contestant: Contestant, config: EvaluateConfig, examples: Sequence[Example]) -> int:
    """The limit of new tokens: as set, or twice the longest reference plus 8 in this model's own tokens."""
    if config.max_new_tokens != "auto":
        return config.max_new_tokens
    encode = contestant.renderer.tokenizer.encode
    texts = [(example.answer.reasoning or "") + example.answer.content for example in examples]
    return 2 * max(len(encode(text, add_special_tokens=False)) for text in texts) + 8


def _scores(config: EvaluateConfig, examples: Sequence[Example], who: _Observed) -> dict[str, list[Score]]:
    """The scores of all metrics on all examples."""
    return {
        METRICS.name_of(metric): score_answers(metric, examples, who.answers)
        if metric.NEEDS == "generation"
        else _score_likelihoods(metric, examples, who.likelihoods)
        for metric in config.metrics
    }


def score_answers(metric: Metric, examples: Sequence[Example], given: Sequence[Answer]) -> list[Score]:
    """A generation metric on each answer; unscored where there is none."""
    labels = _labels(examples)
    return [
        metric.score(Observation(reference(example), text=answer.text, labels=labels))
        if answer.text is not None
        else Score(None, answer.why)
        for example, answer in zip(examples, given, strict=True)
    ]


def _score_likelihoods(metric: Metric, examples: Sequence[Example], given: Sequence[Likelihood]) -> list[Score]:
    labels = _labels(examples)
    return [
        metric.score(Observation(reference(example), nll=likelihood.nll, tokens=likelihood.tokens, labels=labels))
        if likelihood.nll is not None
        else Score(None, likelihood.why)
        for example, likelihood in zip(examples, given, strict=True)
    ]


def _labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """The distinct references where they are few enough to be the classes of a classification."""
    references = [reference(example) for example in examples]
    distinct = sorted({text for text in references if text is not None})
    return tuple(distinct) if len(distinct) <= min(MOST_LABELS, max(2, len(references) // 4)) else ()


def reference(example: Example) -> str | None:
    """The expected text; None where the answer is a tool call or empty, which text metrics cannot score."""
    answer = example.answer
    return answer.content if answer.content.strip() and not answer.tool_calls else None


def _report(
    config: EvaluateConfig,
    examples: Sequence[Example],
    probes: Sequence[Example],
    observed: Mapping[str, _Observed],
    by_contestant: Mapping[str, Mapping[str, Sequence[Score]]],
) -> dict[str, Any]:
    """The value of report.json."""
    metas = [example.meta for example in examples]
    metrics, slices = {}, {key: {value: {} for value in groups(metas, key)} for key in config.slices}
    for metric in config.metrics:
        name = METRICS.name_of(metric)
        scores = {who: found[name] for who, found in by_contestant.items()}
        metrics[name] = summary(metric, scores, config.confidence)
        for key in config.slices:
            for value, rows in groups(metas, key).items():
                slices[key][value][name] = compare(metric.AGGREGATION, picked(scores, rows), config.confidence)
    out: dict[str, Any] = {
        "version": 1, "split": config.split, "n": len(examples), "confidence": config.confidence,
        "metrics": metrics, "slices": slices,
        "answers": {name: _counts(who) for name, who in observed.items() if who.answers},
    }  # fmt: skip
    if config.forgetting is not None:
        completions = {name: who.completions for name, who in observed.items()}
        out["forgetting"] = forgetting.forgetting_report(
            config.forgetting.probes, probes, completions, config.confidence
        )
    return out


def _counts(who: _Observed) -> dict[str, Any]:
    given = [answer for answer in who.answers if answer.text is not None]
    unfinished = sum(not answer.finished for answer in given)
    return {"n": len(given), "unfinished": unfinished, "max_new_tokens": who.max_new_tokens}


def _samples(
    config: EvaluateConfig,
    examples: Sequence[Example],
    observed: Mapping[str, _Observed],
    by_contestant: Mapping[str, Mapping[str, Sequence[Score]]],
) -> list[dict[str, Any]]:
    """The lines of samples.jsonl. `scores` is {metric: {contestant: value or null}}."""
    lines: list[dict[str, Any]] = []
    for index, example in enumerate(examples):
        said = {name: who.answers[index].text if who.answers else None for name, who in observed.items()}
        lines.append({
            "id": example.id,
            "prompt": [message.to_json() for message in example.prompt],
            "reference": example.answer.content,
            **said,
            "scores": {
                METRICS.name_of(metric): {
                    name: found[METRICS.name_of(metric)][index].value for name, found in by_contestant.items()
                }
                for metric in config.metrics
            },
            "meta": example.meta,
        })  # fmt: skip
    return lines
