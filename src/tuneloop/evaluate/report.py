"""The result of an evaluation and its pages: report.md here, report.html by `page`. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.core import jsonl
from tuneloop.evaluate import details, forgetting_view
from tuneloop.evaluate.memorisation import in_words
from tuneloop.pages.markdown import code, plain
from tuneloop.pages.numbers import interval, number, percent, probability

Json = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """`value` is report.json, `samples` are the lines of samples.jsonl."""

    value: Json
    samples: Sequence[Json]


@dataclass(frozen=True)
class Context:
    """What the pages show beside the numbers; everything may be missing."""

    title: str = "Evaluation"
    curves: Sequence[Json] = ()
    """Rows of the training run's metrics.jsonl: step, loss, learning_rate, and val_loss where it was measured."""
    watch: Json = field(default_factory=dict[str, Any])
    """The part `watch` of the training run's summary.json."""
    answers: Sequence[Json] = ()
    """Lines of its generations.jsonl."""
    card: Json = field(default_factory=dict)
    """card.json of the data."""
    recipe: str = ""
    """The resolved recipe, as YAML."""
    versions: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    """Where the run lies."""
    commands: Sequence[str] = ()
    """What to type next."""


def write_pages(folder: Path, report: Report, context: Context) -> None:
    """Writes report.md and report.html into a folder."""
    from tuneloop.evaluate.page import to_html

    jsonl.write_text(folder / "report.md", to_markdown(report, context))
    jsonl.write_text(folder / "report.html", to_html(report, context))


def read(folder: Path) -> Report:
    """The report of a finished evaluation, from its folder."""
    return Report(jsonl.read(folder / "report.json"), list(jsonl.read_lines(folder / "samples.jsonl")))


# -- numbers in words -------------------------------------------------------------------------------------------------
def verdict(difference: Mapping[str, Any] | None, better: str, confidence: float = 0.95) -> str:
    """better, worse or even: even where the p-value (of slices the corrected one) does not rule out chance.

    `changed` where neither direction is good, as of a length.
    """
    if not difference or difference.get("value") is None:
        return "unknown"
    if difference.get("p_holm", difference["p"]) >= 1 - confidence or difference["value"] == 0:
        return "even"
    if better == "neither":
        return "changed"
    return "better" if (difference["value"] > 0) == (better == "higher") else "worse"


def contestants(report: Json) -> list[str]:
    """base and tuned, as far as they took part."""
    first = next(iter(report["metrics"].values()), {})
    return [name for name in ("base", "tuned") if name in first]


def notes(report: Json) -> list[str]:
    """What the numbers leave out: examples not scored and why, answers that were cut."""
    found: list[str] = list(report.get("notes", ()))
    if "against" in report:
        found.append("base: in its place {model} at {url} was asked (evaluate.against)".format(**report["against"]))
    for name, entry in report["metrics"].items():
        counted = {(reason, count): [] for part in entry["unscored"].values() for reason, count in part.items()}
        for who, part in entry["unscored"].items():
            for reason, count in part.items():
                counted[reason, count].append(who)
        found += [f"{name}: {count} unscored ({' and '.join(who)}): {why}" for (why, count), who in counted.items()]
    for task, metrics in report.get("tasks", {}).items():
        for metric, entry in metrics.items():
            scores = ", ".join(f"{who} {number(part['value'])} ({interval(part)})" for who, part in entry.items())
            found.append(f"{task} {metric}: {scores}")
    for who, counts in report.get("answers", {}).items():
        if counts["unfinished"]:
            cut, limit = f"{counts['unfinished']} of {counts['n']} answers", counts["max_new_tokens"]
            found.append(f"{who}: {cut} were cut at {limit} tokens (evaluate.max_new_tokens)")
    return found


# -- Markdown ---------------------------------------------------------------------------------------------------------
def to_markdown(report: Report, context: Context) -> str:
    """The numbers as Markdown tables, for terminals, reviews and model cards."""
    value = report.value
    share = percent(value["confidence"])
    asked = f"{value['n']} examples of the {value['split']} split; {share} intervals."
    lines = [f"# {plain(context.title)}", "", asked, ""]
    lines += _table(list(value["metrics"].items()), "metric")
    lines += ["", *(f"- {plain(note)}" for note in notes(value))]
    for name, entry in value["metrics"].items():
        lines += details.to_markdown(name, entry.get("details", {}))
    for key, rows in value["slices"].items():
        for metric in value["metrics"]:
            lines += ["", f"## {plain(metric)} by {plain(key)}", ""]
            lines += _table([(label, entry[metric]) for label, entry in rows.items()], key)
    if "forgetting" in value:
        lines += forgetting_view.to_markdown(value["forgetting"], _table)
    memorised = in_words(value["memorisation"]) if "memorisation" in value else []
    lines += ["", "## Memorisation", "", *(f"- {plain(line)}" for line in memorised)] if memorised else []
    lines += ["", "## Signatures", ""]
    lines += [f"- {name}: {code(entry['signature'])}" for name, entry in value["metrics"].items()]
    if context.run:
        lines += ["", f"Run: {code(context.run)}"]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[tuple[str, Json]], head: str) -> list[str]:
    lines = [f"| {plain(head)} | base | tuned | difference | p | n |", "|---|---|---|---|---|---|"]
    for label, entry in rows:
        change = entry.get("difference")
        cells = [
            f"{number(part.get('value'))} ({interval(part)})" if part else "–"
            for part in (entry.get("base"), entry.get("tuned"))
        ]
        moved = f"{number(change['value'], True)} ({interval(change, True)})" if change else "–"
        n = (entry.get("tuned") or {}).get("n", 0)
        p = probability(change.get("p_holm", change["p"])) if change else "–"
        lines.append(f"| {plain(label)} | {cells[0]} | {cells[1]} | {moved} | {p} | {n} |")
    return lines
