"""Several models asked the same: the table version × ability that remedies and chains of versions are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.errors import RunError
from tuneloop.core.runs import Run
from tuneloop.evaluate import forgetting
from tuneloop.evaluate.contestant import Contestant
from tuneloop.evaluate.drift import Drift
from tuneloop.evaluate.forgetting import Ability, Probed, Probes
from tuneloop.evaluate.forgetting_view import abilities as abilities_of
from tuneloop.evaluate.kept import Kept
from tuneloop.evaluate.metrics import METRICS
from tuneloop.flows.recipe import Recipe
from tuneloop.pages.numbers import interval, number
from tuneloop.pages.page import render
from tuneloop.track import console

Json = dict[str, Any]
BASE = "base"
FEW = 50  # validation rows below which the test rows are taken instead


@dataclass
class Version:
    """One model's line of the table."""

    name: str
    abilities: dict[str, Json]
    """Ability → numbers of base and this version (called `tuned`) with their difference, as in report.json."""
    kl: Json | None = None
    facts: Json = field(default_factory=dict[str, Any])
    """Whatever else belongs to it: its run, its scale."""

    def to_json(self) -> Json:
        return {"name": self.name, **self.facts, "abilities": self.abilities, "kl": self.kl}

    def value(self, ability: str) -> float | None:
        return (self.abilities[ability].get("tuned") or {}).get("value")


class Table:
    """Measures versions one after another against the base, whose answers are kept.

    With `remember` what was measured of the same models before is not measured again. Of the base alone, what it says
    on the neutral prompts is: a version that is not known yet is held against it.
    """

    def __init__(self, probes: Probes, confidence: float, *, remember: bool = False) -> None:
        self.probes, self.confidence, self.remember = probes, confidence, remember
        self.seen: dict[str, Probed] = {}
        self.versions: list[Version] = []
        self._base = Kept("")

    def add(self, name: str, contestant: Contestant, **facts: Any) -> Version:
        """Asks one more version everything; the first is the base."""
        kept = Kept(contestant.engine.identity if self.remember else "")
        found = Probed(forgetting.ask(name, contestant, self.probes.abilities, kept))
        kl = None
        if not self.seen:
            self._base, self.seen[BASE] = kept, forgetting.listen(found, contestant, self.probes.neutral)
        elif self.probes.neutral:
            kl = self._drift(found, contestant, kept).to_json(self.confidence)
        if kept.hits:
            count = len(self.probes.abilities) + (kl is not None)
            say = f"{kept.hits} of {count} measurements were made before, of the same model on the same probes"
            console.decided(name, f"{say}; `evaluate.cache: false` makes them anew")
        self.seen[name] = found
        entries = {ability.name: self.against(ability, BASE, name) for ability in self.probes.abilities}
        self.versions.append(Version(name, entries, kl, facts))
        return self.versions[-1]

    def _drift(self, found: Probed, contestant: Contestant, kept: Kept) -> Drift:
        asked = [example.to_json() for example in self.probes.neutral]
        parts = kept.parts(asked, self._base)
        if parts is not None:
            return Drift(parts)
        heard = forgetting.listen(found, contestant, self.probes.neutral)
        drift = Drift.between(heard, self.seen[BASE], len(self.probes.neutral))
        found.distributions = None  # only the base's are needed again
        if drift.parts:
            kept.keep_parts(asked, self._base, drift.parts)
        return drift

    def against(self, ability: Ability, before: str, after: str) -> Json:
        """One ability of two versions."""
        seen = {"base": self.seen[before].seen[ability.name], "tuned": self.seen[after].seen[ability.name]}
        return forgetting.entry(ability, seen, self.confidence)


def task_of(name: str, recipe: Recipe, prepared: Run, split: str) -> Ability:
    """What a tuning was for: its held-out rows and the first metric that judges answers."""
    from tuneloop.data.prepare import load_examples

    rows = load_examples(prepared.out / f"{split}.jsonl")
    if not rows:
        raise RunError(f"{prepared.path}: the {split} split is empty, so {name} cannot be measured on its own task")
    metrics = recipe.evaluate.metrics
    metrics = [one for one in metrics if one.BETTER != "neither"]
    metric = next((one for one in metrics if one.NEEDS == "generation" and not one.SLOW), next(iter(metrics), None))
    if metric is None:
        raise RunError(f"{name}: of evaluate.metrics none says which version is better; --set evaluate.metrics=[f1]")
    given = recipe.evaluate.max_new_tokens
    rows = choose(rows, recipe.evaluate.limit, "evaluate")
    return Ability(name, rows, metric, None if given == "auto" else given, METRICS.name_of(metric))


def split_for_choosing(prepared: Run) -> str:
    """val, so that the test rows stay unseen; test where val is too small, and then it is said."""
    count = sum(1 for _ in jsonl.read_lines(prepared.out / "val.jsonl"))
    if count >= FEW:
        return "val"
    console.decided("rows", f"the test split, as val has {count} rows: numbers of what is chosen by them flatter")
    return "test"


# -- for people --------------------------------------------------------------------------------------------------------
def cells(version: Version) -> list[tuple[str, Json, Json | None]]:
    """(ability, its number, its difference to the base) of one line; the base has no difference."""
    own = version.name != BASE
    return [
        (name, entry.get("tuned") or {}, entry.get("difference") if own else None)
        for name, entry in version.abilities.items()
    ]


def to_rich(title: str, versions: Sequence[Version], marks: Mapping[str, str]) -> Any:
    """The table for the terminal; `marks` are words at the end of a line, by version."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    from tuneloop.evaluate.report import verdict
    from tuneloop.evaluate.table import COLOURS

    table = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in versions[0].abilities:
        table.add_column(name, justify="right")
    table.add_column("KL", justify="right")
    table.add_column("")
    for version in versions:
        row = [Text(version.name)]
        for name, value, change in cells(version):
            better = version.abilities[name]["better"]
            ends = interval(value).replace(" … ", "–")
            style = COLOURS[verdict(change, better)] if change else ""
            row.append(Text.assemble((number(value.get("value")), style), " ", (ends, "dim")))
        kl = number(version.kl["value"]) if version.kl else "–"
        table.add_row(*row, Text(kl), Text(marks.get(version.name, "")))
    return table


def to_html(title: str, lead: str, versions: Sequence[Version], marks: Mapping[str, str], **more: Any) -> str:
    """The page: a heat map of what is right, the table, what the last version lost, and `more` (advice, transfer)."""
    from tuneloop.evaluate.report import verdict
    from tuneloop.pages.heat import heat

    shares = [
        (name, [version.value(name) or 0.0 for version in versions])
        for name, entry in versions[0].abilities.items()
        if entry["aggregation"] in ("proportion", "mean")
    ]
    rows = [
        {
            "name": version.name, "mark": marks.get(version.name, ""), "kl": version.kl,
            "cells": [
                {"value": value, "change": change, "verdict": verdict(change, version.abilities[name]["better"])}
                for name, value, change in cells(version)
            ],
        }
        for version in versions
    ]  # fmt: skip
    lost = [
        {"name": f"{version.name}, {name}", "lines": entry.get("lost", [])}
        for version in versions
        for name, entry in abilities_of({"abilities": version.abilities}).items()
        if entry.get("lost")
    ]
    given = {"advice": [], "transfer": None} | more
    return render(
        "tuneloop.flows", "versions.html.jinja", title=title, lead=lead, rows=rows, names=list(versions[0].abilities),
        heat=heat(shares, "version", 1.0) if shares else "", numbered=[version.name for version in versions],
        lost=lost, **given,
    )  # fmt: skip
