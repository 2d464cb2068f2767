"""From samples to tables: medians, how many times as fast tuneloop is, goals, every raw figure; as Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from training import growth, preparing
from training.contestants import CONTESTANTS, RIVALS
from training.works import WORKS

SAMPLES = "samples.jsonl"
FILE = Path(__file__).resolve().parents[1] / "RESULTS.md"
HEAD = """# Training side by side

Made by `make bench` (`benchmarks/train.py`). Real tokens a second, padding never counted; medians of samples that take
turns, each a process of its own. Same model, rows, precision (bf16 compute; what is trained stands in float32) and
optimizer (AdamW, constant rate) for all. "by length": batches of rows of similar length. First and last loss: of the
same rows for all, before the first and after the last timed step; they agree where all learn the same. Memory: most
bytes resident at once, all processes of the command together. First step: from the command to the end of the first
optimizer step. `tuneloop ×` is how many times as many tokens a second tuneloop does. Of rate: the operations that
the work needs at least (benchmarks/training/flops.py) against those of large products measured in the same round.
Samples during which other processes took more than a tenth of the cores count only where a contestant has no others.
"""
DISTURBED = 0.1
"""Share of the cores that other processes may take while a sample is taken."""
HALF = ("qwen05b-gsm8k",)
"""Works in which half of the machine's rate is a goal too."""
Row = dict[str, Any]


def read(work: Path) -> list[Row]:
    """All samples in the work folder."""
    path = work / SAMPLES
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def page(work: Path, *, write: bool) -> str:
    """All tables of the samples in the work folder; with `write` as RESULTS.md too, beside its drawings."""
    samples = read(work)
    if not samples:
        return "no samples yet"
    by_work: dict[str, list[Row]] = {}
    for row in samples:
        by_work.setdefault(row["work"], []).append(row)
    parts = [_training(name, by_work[name]) for name in WORKS if name in by_work and name not in ("start",)]
    parts += [_start(by_work["start"])] if "start" in by_work else []
    counts = sorted(int(name.partition("-")[2]) for name in by_work if name.startswith("prepare-"))
    parts += [_preparing(count, by_work[f"prepare-{count}"]) for count in counts]
    text = "\n".join([HEAD, _machine(samples), *parts])
    if write:
        drawn = growth.draw(by_work, FILE.parent)
        FILE.write_text(text + "".join(f"\n![{path.stem}]({path.name})\n" for path in drawn), "utf-8")
    return text


def _machine(samples: Sequence[Row]) -> str:
    machine = samples[-1]["machine"]
    rates = [row["rates"] for row in samples if row.get("rates")]
    measured = ", ".join(f"{name} {_median(rates, name) / 1e9:,.0f}" for name in ("bf16", "fp32")) if rates else "?"
    times = [row["at"] for row in samples]
    commits = ", ".join(sorted({row["code"] for row in samples}))
    ours = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    theirs = "; ".join(f"{name}: {' '.join(rival.packages)}" for name, rival in RIVALS.items())
    return (
        f"- machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['has'])}), "
        f"{machine['memory_gib']} GiB\n"
        f"- matrix products, measured in the same runs: {measured} GFLOP/s\n"
        f"- tuneloop {commits} with {ours}; rivals: {theirs}\n"
        f"- samples from {min(times)} to {max(times)}\n"
    )


def _training(name: str, rows: list[Row]) -> str:
    groups, work = _groups(rows), WORKS[name]
    ours = _median(groups["tuneloop"], "tokens_per_second") if "tuneloop" in groups else None
    lines = [
        f"\n## {name}: {work.about}\n",
        "| contestant | tokens/s | samples | tuneloop × | of rate | GiB | first, last loss | first step, s | all, s |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for contestant, found in groups.items():
        rates = [row["tokens_per_second"] for row in found]
        median, raw = statistics.median(rates), " ".join(f"{rate:.0f}" for rate in rates)
        times = f"{ours / median:.1f}" if ours and contestant != "tuneloop" else "–"
        first, last, memory = (_median(found, key) for key in ("first_loss", "last_loss", "peak_gib"))
        start, whole = (_median(found, key) for key in ("first_step", "seconds"))
        lines.append(
            f"| {CONTESTANTS[contestant].title} | {median:,.0f} | {raw} | {times} | {_share_of_rate(found):.0%} | "
            f"{memory:.2f} | {first:.3f}, {last:.3f} | {start:.1f} | {whole:.0f} |"
        )
    lines += [f"\nfailed: {CONTESTANTS[row['contestant']].title}: {row['failed']}" for row in rows if "failed" in row]
    if ours:
        lines += ["", *(_goal(groups, ours, rival, factor) for rival, factor in work.goals.items())]
        lines += _memory(groups)
        lines += _rate(groups) if name in HALF else []
    return "\n".join(lines) + "\n"


def _share_of_rate(rows: Sequence[Row]) -> float:
    """The operations that the work needs at least, in matrix products of bf16 as fast as measured in the same round."""
    return statistics.median(row["flops_per_second"] / row["rates"]["bf16"] for row in rows)


def _goal(groups: dict[str, list[Row]], ours: float, rival: str, factor: float) -> str:
    named = _fastest(groups, rival)
    if named is None:
        return f"- goal {factor:g} × {rival}: not measured"
    rate, title = _median(groups[named], "tokens_per_second"), CONTESTANTS[named].title
    reached = ours / rate
    return f"- goal {factor:g} × {title}: {reached:.1f} × ({'reached' if reached >= factor else 'missed'})"


def _fastest(groups: dict[str, list[Row]], rival: str) -> str | None:
    """`trl-best` is the fastest of TRL's correct settings that were tried; other names stand for themselves."""
    if not rival.endswith("-best"):
        return rival if rival in groups else None
    names = [name for name in groups if name.startswith(rival.removesuffix("best")) and CONTESTANTS[name].best]
    return max(names, key=lambda name: _median(groups[name], "tokens_per_second"), default=None)


def _memory(groups: dict[str, list[Row]]) -> list[str]:
    best = _fastest(groups, "trl-best")
    if best is None:
        return []
    ours, theirs = _median(groups["tuneloop"], "peak_gib"), _median(groups[best], "peak_gib")
    word = "reached" if ours <= theirs else "missed"
    return [f"- goal memory of {CONTESTANTS[best].title} or less: {ours:.2f} of {theirs:.2f} GiB ({word})"]


def _rate(groups: dict[str, list[Row]]) -> list[str]:
    share = _share_of_rate(groups["tuneloop"])
    return [f"- goal half of the bf16 matrix rate: {share:.0%} ({'reached' if share >= 0.5 else 'missed'})"]


def _start(rows: list[Row]) -> str:
    groups = _groups(rows)
    lines = [
        f"\n## start: {WORKS['start'].about}\n",
        "| contestant | seconds | samples | memory, GiB |",
        "|---|--:|---|--:|",
    ]
    for name, found in groups.items():
        raw = " ".join(f"{row['first_step']:.1f}" for row in found)
        seconds, memory = _median(found, "first_step"), _median(found, "peak_gib")
        lines.append(f"| {CONTESTANTS[name].title} | {seconds:.1f} | {raw} | {memory:.2f} |")
    if {"trl", "tuneloop"} <= groups.keys():
        share = _median(groups["tuneloop"], "first_step") / _median(groups["trl"], "first_step")
        lines.append(f"\n- goal half of TRL's time: {share:.2f} of it ({'reached' if share <= 0.5 else 'missed'})")
    return "\n".join(lines) + "\n"


def _preparing(count: int, rows: list[Row]) -> str:
    groups = _groups(rows)
    lines = [
        f"\n## prepare: tokens, masks and plan of {count:,} chats\n",
        "| contestant | seconds | samples | chats/s | tuneloop × | memory, GiB |", "|---|--:|---|--:|--:|--:|",
    ]  # fmt: skip
    ours = _median(groups["tuneloop"], "seconds") if "tuneloop" in groups else None
    for name, found in groups.items():
        seconds, raw = _median(found, "seconds"), " ".join(f"{row['seconds']:.1f}" for row in found)
        times = f"{seconds / ours:.1f}" if ours and name != "tuneloop" else "–"
        memory = _median(found, "peak_gib")
        lines.append(
            f"| {preparing.TITLES[name]} | {seconds:.1f} | {raw} | {count / seconds:,.0f} | {times} | {memory:.2f} |"
        )
    if ours and "trl" in groups:
        times = _median(groups["trl"], "seconds") / ours
        lines.append(f"\n- goal 5 × TRL's preparation: {times:.1f} × ({'reached' if times >= 5 else 'missed'})")
    return "\n".join(lines) + "\n"


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Samples that got through, by contestant: the undisturbed ones where there are any."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if "failed" not in row:
            groups.setdefault(row["contestant"], []).append(row)
    calm = {name: [row for row in found if row["others"] <= DISTURBED] for name, found in groups.items()}
    return {name: calm[name] or found for name, found in groups.items()}


def _median(rows: Sequence[Row], key: str) -> float:
    return statistics.median(row[key] for row in rows)
