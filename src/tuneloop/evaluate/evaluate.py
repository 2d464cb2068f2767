"""The stage: asks base and tuned the same questions, scores them pair by pair, writes samples and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.core.runs import Run
from tuneloop.evaluate import forgetting, harness, memorisation, report
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Entrant
from tuneloop.evaluate.forgetting import Probed
from tuneloop.evaluate.metrics import METRICS, Score
from tuneloop.evaluate.observing import Observed, ask, score_contestants
from tuneloop.evaluate.report import Context, Report
from tuneloop.evaluate.scoring import SUMMED, How, Scored, arrays, by_slice, entry, facts, how, measure, statistics
from tuneloop.evaluate.slices import Slices, cut
from tuneloop.track.console import waiting


def evaluate(
    config: EvaluateConfig,
    examples: Sequence[Example],
    entrants: Mapping[str, Entrant],
    run: Run,
    context: Context | None = None,
    trained: Sequence[Example] = (),
) -> Report:
    """Measures `entrants["tuned"]` and, where given and wanted, `entrants["base"]`, one after the other.

    Writes samples.jsonl, report.json, report.md and report.html into `run.out`; `context` is what the pages show
    beside the numbers, `trained` the training rows, of which answers may repeat something.

    Raises DataError when there is nothing to ask.
    """
    if not examples:
        raise DataError(f"the {config.split} split is empty: nothing to evaluate; give evaluate.split or data.split")
    chosen = choose(examples, config.limit, "evaluate")
    probes = forgetting.load(config.forgetting) if config.forgetting is not None else None
    names = [name for name in ("base", "tuned") if name in entrants and (name == "tuned" or config.base)]
    observed: dict[str, Observed] = {}
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    probed: dict[str, Probed] = {}
    for name in names:
        with entrants[name]() as contestant:
            observed[name] = ask(name, contestant, config, chosen)
            if probes is not None:
                probed[name] = forgetting.probe(name, contestant, probes)
            if config.tasks:
                with waiting(f"{name}: tasks {', '.join(config.tasks)}"):
                    tasks[name] = harness.run(contestant, config.tasks, config.limit, config.tasks_as_chat)
    scores, details = score_contestants(config, chosen, observed)
    parts = cut(config.slices, chosen)
    value = _report(config, chosen, observed, scores, parts)
    if probes is not None:
        value["forgetting"] = forgetting.forgetting_report(probes, probed, config.confidence)
    for name, found in details.items():
        value["metrics"][name]["details"] = found
    if config.memorisation and trained and any(who.answers for who in observed.values()):
        value["memorisation"] = memorisation.of_answers(chosen, observed, trained, config.confidence)
    if tasks:
        value["tasks"] = harness.report(tasks, config.confidence)
    found = Report(value, _samples(config, chosen, observed, scores, parts))
    jsonl.write_lines(run.out / "samples.jsonl", found.samples)
    jsonl.write(run.out / "report.json", found.value)
    report.write_pages(run.out, found, context or Context())
    return found


def _report(
    config: EvaluateConfig,
    examples: Sequence[Example],
    observed: Mapping[str, Observed],
    by_contestant: Mapping[str, Mapping[str, Sequence[Score]]],
    parts: Slices,
) -> dict[str, Any]:
    """The value of report.json."""
    given: dict[str, tuple[How, dict[str, Scored]]] = {}
    metrics: dict[str, Any] = {}
    for metric in config.metrics:
        name = METRICS.name_of(metric)
        scores = {who: found[name] for who, found in by_contestant.items()}
        given[name] = how(metric), {who: arrays(how(metric), one) for who, one in scores.items()}
        metrics[name] = facts(metric, scores)
    for name, found in measure(given, config.confidence).items():
        metrics[name] |= entry(found)
    out: dict[str, Any] = {
        "version": 1, "split": config.split, "n": len(examples), "confidence": config.confidence,
        "metrics": metrics, "slices": by_slice(given, parts.keys, config.confidence), "notes": parts.notes,
        "answers": {name: _counts(who) for name, who in observed.items() if who.answers},
    }  # fmt: skip
    if config.against is not None:
        out["against"] = {"model": config.against.model, "url": config.against.url}
    return out


def _counts(who: Observed) -> dict[str, Any]:
    given = [answer for answer in who.answers if answer.text is not None]
    unfinished = sum(not answer.finished for answer in given)
    return {
        "n": len(given), "unfinished": unfinished, "max_new_tokens": who.max_new_tokens,
        "known": sum(answer.known for answer in given), "seconds": round(who.seconds, 3),
    }  # fmt: skip


def _samples(
    config: EvaluateConfig,
    examples: Sequence[Example],
    observed: Mapping[str, Observed],
    by_contestant: Mapping[str, Mapping[str, Sequence[Score]]],
    parts: Slices,
) -> list[dict[str, Any]]:
    """The lines of samples.jsonl: `scores` is {metric: {contestant: value or null}}.

    `statistics` is the same of the metrics whose number does not follow from these values (see `scoring.statistics`),
    so that runs can be compared later.
    """
    named = {METRICS.name_of(metric): metric for metric in config.metrics}
    summed = {name: metric for name, metric in named.items() if metric.AGGREGATION in SUMMED}
    members = parts.by_example(len(examples))
    lines: list[dict[str, Any]] = []
    for index, example in enumerate(examples):

        def by_who(name: str, of: Callable[[Score], Any], index: int = index) -> dict[str, Any]:
            return {who: of(found[name][index]) for who, found in by_contestant.items()}

        said = {name: who.answers[index].text if who.answers else None for name, who in observed.items()}
        line = {
            "id": example.id,
            "prompt": [message.to_json() for message in example.prompt],
            "reference": example.answer.content,
            **said,
            "scores": {name: by_who(name, lambda score: score.value) for name in named},
        }
        if summed:
            line["statistics"] = {name: by_who(name, partial(statistics, metric)) for name, metric in summed.items()}
        if parts.keys:
            line["slices"] = members[index]
        lines.append({**line, "meta": example.meta})
    return lines
