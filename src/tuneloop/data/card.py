"""The data card: the ledger of all rows, and what a person should know about the data before training on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.core.conversation import Drop, Example, JsonObject
from tuneloop.data.source import Loaded
from tuneloop.data.words import count_words, script_of, spoken

SMALL = 100  # test rows: below, a 95 % interval of an accuracy is wider than about ± 0.1
MANY_DROPPED = 0.05
SHOWN = ("level", "code", "count", "message", "source")
Finding = JsonObject


@dataclass(frozen=True)
class Facts:
    """All that the card is made from. `sources` includes those of own val and test files."""

    sources: Sequence[Loaded]
    splits: Mapping[str, Sequence[Example]]
    drops: Sequence[Drop]
    repaired: int
    shares: Mapping[str, float]
    """The share asked for of each split; a split with a file of its own has 1."""


def card(facts: Facts) -> JsonObject:
    """card.json: {"version", "rows", "splits", "findings", "sources"}; in = kept + dropped, in all and per source."""
    kept = [example for examples in facts.splits.values() for example in examples]
    rows_in = sum(source.rows for source in facts.sources)
    assert rows_in == len(kept) + len(facts.drops), f"{rows_in} rows in, {len(kept)} kept, {len(facts.drops)} dropped"
    return {
        "version": 1,
        "rows": {
            "in": rows_in,
            "kept": len(kept),
            "repaired": facts.repaired,
            "dropped": dict(Counter(drop.step for drop in facts.drops)),
        },
        "splits": {name: len(examples) for name, examples in facts.splits.items()},
        "findings": sorted(_findings(facts, kept), key=lambda found: ("ERROR", "WARN", "INFO").index(found["level"])),
        "sources": _sources(facts, kept),
    }


def _sources(facts: Facts, kept: Sequence[Example]) -> list[JsonObject]:
    """The ledger per source. One file may be named twice, so the rows are counted by path and row as lists."""
    paths = [source.path for source in facts.sources]
    left = Counter(example.origin.source for example in kept)
    gone: dict[str, Counter[str]] = {path: Counter() for path in paths}
    for drop in facts.drops:
        gone[drop.origin.source][drop.step] += 1
    ledger: list[JsonObject] = []
    for path in dict.fromkeys(paths):
        same = [source for source in facts.sources if source.path == path]
        rows = sum(source.rows for source in same)
        lost = gone[path].total()
        assert rows == left[path] + lost, f"{path}: {rows} rows in, {left[path]} kept, {lost} dropped"
        ledger.append({
            "name": same[0].label,
            "path": path,
            "format": same[0].recognition.format,
            "confidence": same[0].recognition.confidence,
            "encoding": same[0].recognition.encoding,
            "available": max(source.available for source in same),
            "rows": {"in": rows, "kept": left[path], "dropped": dict(gone[path])},
        })  # fmt: skip
    return ledger


def _findings(facts: Facts, kept: Sequence[Example]) -> list[Finding]:
    return [
        *_about_splits(facts),
        *_about_drops(facts),
        *_about_sources(facts),
        *(_about_content(kept) if kept else []),
    ]


def finding(level: str, code: str, count: int, message: str, **more: Any) -> Finding:
    """One finding in the card's shape."""
    return {"level": level, "code": code, "count": count, "message": message, **more}


def _about_splits(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for name, examples in facts.splits.items():
        count = len(examples)
        if count == 0 and facts.shares[name] > 0:
            level = "ERROR" if name == "train" else "WARN"
            found.append(finding(level, f"empty_{name}", 0, f"{name} is empty"))
        elif name == "test" and 0 < count < SMALL:
            width = 1.96 * (0.25 / count) ** 0.5
            text = f"only {count} test rows: an accuracy near 0.5 is known to ± {width:.2f} at best"
            found.append(finding("WARN", "small_test", count, text))
    return found


def _about_drops(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for source in facts.sources:
        lost = [drop for drop in facts.drops if drop.origin.source == source.path]
        if len(lost) > MANY_DROPPED * source.rows:
            reasons = Counter(f"{drop.step}: {drop.reason}" for drop in lost).most_common(3)
            text = f"{source.label}: {len(lost)} of {source.rows} rows dropped; most often {reasons[0][0]}"
            found.append(finding("WARN", "many_dropped", len(lost), text, source=source.path, reasons=dict(reasons)))
    return list({one["source"]: one for one in found}.values())


def _about_sources(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for source in facts.sources:
        if source.rows < source.available:
            text = f"{source.label}: {source.rows:,} of {source.available:,} rows used (limit or sample)"
            found.append(finding("INFO", "not_all_used", source.available - source.rows, text, source=source.path))
        for note, count in source.notes.items():
            found.append(finding("INFO", "decided", count, f"{source.label}: {note}", source=source.path))
    return found


def _about_content(kept: Sequence[Example]) -> list[Finding]:
    answers = [spoken(example.answer) for example in kept]
    found: list[Finding] = []
    if len(kept) > 1 and len(set(answers)) == 1:
        text = f"all {len(kept)} answers are the same: {answers[0][:60]!r}. Is a template comparing text with a number?"
        found.append(finding("WARN", "one_answer", len(kept), text))
    roles = Counter(message.role for example in kept for message in example.messages)
    found.append(finding("INFO", "roles", roles.total(), "messages by role", roles=dict(roles)))
    scripts = Counter(
        script_of("".join(message.content for message in example.messages if message.role != "system"))
        for example in kept
    )
    found.append(finding("INFO", "languages", len(kept), "rows by writing", languages=dict(scripts.most_common())))
    lengths = {
        "prompt": _spread([count_words("\n".join(spoken(m) for m in example.prompt)) for example in kept]),
        "answer": _spread([count_words(answer) for answer in answers]),
    }
    found.append(finding("INFO", "lengths", len(kept), "words (a Chinese character is one)", words=lengths))
    return found


def _spread(lengths: list[int]) -> dict[str, int]:
    """Median, 95th percentile (nearest rank) and largest."""
    ordered = sorted(lengths)
    p50, p95 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95))
    return {"p50": p50, "p95": p95, "max": ordered[-1]}


def markdown(card: JsonObject) -> str:
    """card.md: the same for people."""
    rows, steps = card["rows"], card["rows"]["dropped"]
    lines = [
        "# Data card",
        "",
        f"{rows['in']:,} rows in = {rows['kept']:,} kept + {sum(steps.values()):,} dropped; {rows['repaired']:,} of "
        "the kept were repaired. Every dropped row stands in dropped.jsonl with its reason.",
        "",
        "| split | rows |",
        "|---|---:|",
        *(f"| {name} | {count:,} |" for name, count in card["splits"].items()),
        "",
        f"| source | format | encoding | in | kept | {' | '.join(steps) or 'dropped'} |",
        f"|---|---|---|---:|---:|{'---:|' * max(1, len(steps))}",
    ]
    for source in card["sources"]:
        dropped = " | ".join(f"{source['rows']['dropped'].get(step, 0):,}" for step in steps) or "0"
        lines.append(
            f"| {_cell(source['name'])} | {source['format']} | {source['encoding'] or 'Parquet'} | "
            f"{source['rows']['in']:,} | {source['rows']['kept']:,} | {dropped} |"
        )
    lines += ["", "## Findings", ""]
    for found in card["findings"]:
        details = "; ".join(f"{key}: {_details(value)}" for key, value in found.items() if key not in SHOWN)
        lines.append(f"- **{found['level']}** {found['code']}: {found['message']}{f' ({details})' if details else ''}")
    return "\n".join(lines) + "\n"


def _details(value: Any) -> str:
    if isinstance(value, dict):
        nested = {key: f"[{_details(inner)}]" if isinstance(inner, dict) else inner for key, inner in value.items()}
        return ", ".join(f"{key} {inner}" for key, inner in nested.items())
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
