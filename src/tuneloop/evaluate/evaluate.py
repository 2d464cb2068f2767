"""The stage: asks base and tuned the same questions, scores them pair by pair, writes samples and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.core.runs import Run
from tuneloop.evaluate import forgetting, memorisation, report
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Entrant, answers
from tuneloop.evaluate.metrics import METRICS, Score
from tuneloop.evaluate.observing import Observed, ask, score_contestants
from tuneloop.evaluate.report import Context, Report
from tuneloop.evaluate.scoring import compare, groups, how, picked, summary
from tuneloop.generate.engine import Decoding
from tuneloop.track.console import progress


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
    probes: list[Example] = []
    if config.forgetting is not None:
        probes = choose(forgetting.load_probes(config.forgetting), config.forgetting.limit, "evaluate")
    names = [name for name in ("base", "tuned") if name in entrants and (name == "tuned" or config.base)]
    observed: dict[str, Observed] = {}
    for name in names:
        with entrants[name]() as contestant:
            observed[name] = ask(name, contestant, config, chosen)
            if probes and config.forgetting is not None:
                with progress(f"{name}: known facts", len(probes)) as bar:
                    decoding = Decoding(config.forgetting.max_new_tokens)
                    observed[name].completions = answers(contestant, probes, decoding, bar.advance)
    scores, details = score_contestants(config, chosen, observed)
    value = _report(config, chosen, probes, observed, scores)
    for name, found in details.items():
        value["metrics"][name]["details"] = found
    if config.memorisation and trained and any(who.answers for who in observed.values()):
        value["memorisation"] = memorisation.of_answers(chosen, observed, trained, config.confidence)
    found = Report(value, _samples(config, chosen, observed, scores))
    jsonl.write_lines(run.out / "samples.jsonl", found.samples)
    jsonl.write(run.out / "report.json", found.value)
    report.write_pages(run.out, found, context or Context())
    return found


def _report(
    config: EvaluateConfig,
    examples: Sequence[Example],
    probes: Sequence[Example],
    observed: Mapping[str, Observed],
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
                slices[key][value][name] = compare(how(metric), picked(scores, rows), config.confidence)
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


def _counts(who: Observed) -> dict[str, Any]:
    given = [answer for answer in who.answers if answer.text is not None]
    unfinished = sum(not answer.finished for answer in given)
    return {"n": len(given), "unfinished": unfinished, "max_new_tokens": who.max_new_tokens}


def _samples(
    config: EvaluateConfig,
    examples: Sequence[Example],
    observed: Mapping[str, Observed],
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
