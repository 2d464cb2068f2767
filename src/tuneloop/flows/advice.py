"""Which remedy against forgetting, from measured numbers alone: the gate, the choice, and the reasons in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.flows.versions import BASE, Version
from tuneloop.pages.numbers import number

Json = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """No ability but the task may drop against the base by more than `most`.

    A drop is a difference of shares (or of other values up to 1); of what is better when lower (bits per byte) or not
    bounded it is relative to the base. The measured value decides, and the advice says whether the interval does too.
    """

    most: float
    task: str

    def drops(self, version: Version) -> dict[str, tuple[float, float]]:
        """Ability → (drop, its worst end); abilities that were not measured on both are left out."""
        found: dict[str, tuple[float, float]] = {}
        for name, entry in version.abilities.items():
            change, base = entry.get("difference") or {}, entry.get("base") or {}
            if name == self.task or change.get("value") is None:
                continue
            unit = 1.0 if entry["aggregation"] in ("proportion", "mean") else abs(base["value"]) or 1.0
            down, lowest = -change["value"], -change["low"]
            if entry["better"] == "lower":
                down, lowest = change["value"], change["high"]
            found[name] = (down / unit, lowest / unit)
        return found

    def worst(self, version: Version) -> Json | None:
        """The ability that dropped most: {"ability", "drop", "at_worst"}."""
        drops = self.drops(version)
        if not drops:
            return None
        name = max(drops, key=lambda key: drops[key][0])
        return {"ability": name, "drop": drops[name][0], "at_worst": max(end for _, end in drops.values())}

    def passes(self, version: Version) -> bool:
        worst = self.worst(version)
        return worst is not None and worst["drop"] <= self.most


@dataclass(frozen=True)
class Step:
    """One thing to do, why, and what to type."""

    title: str
    why: str
    commands: tuple[str, ...] = ()

    def to_json(self) -> Json:
        return {"title": self.title, "why": self.why, "commands": list(self.commands)}


@dataclass(frozen=True)
class Advice:
    """The version that is best of those that pass, and what follows."""

    choice: str | None
    scale: float | None
    """The scale of the choice, where it is one below 1."""
    steps: Sequence[Step] = field(default_factory=list[Step])


def advise(
    versions: Sequence[Version], gate: Gate, run: str, recipes: Mapping[str, tuple[str, Path]], general: str | None
) -> Advice:
    """The choice: of the versions that pass the gate the one with the best task value, the less changed one of equals.

    `versions` begins with base and tuned; `recipes`: remedy → (its setting, its recipe file).
    """
    tuned = versions[1]
    worst = gate.worst(tuned)
    if worst is None:
        return Advice(None, None, [Step("nothing to say", "no probe was answered by both models")])
    if gate.passes(tuned):
        most = f"most: {worst['ability']}, {worst['drop']:.3f}"
        why = f"nothing drops by more than {gate.most:g} ({most}){_sure(gate, tuned)}"
        return Advice(tuned.name, None, [Step("keep the tuned model as it is", why)])
    passing = [one for one in versions if one.name != BASE and gate.passes(one)]
    best = max(passing, key=lambda one: _value(one, gate), default=None)
    if best is None:
        return Advice(None, None, [_none(versions, gate), *_training(versions, recipes, run, general)])
    steps = [_chosen(best, tuned, gate, run)]
    if _value(tuned, gate) - _value(best, gate) > gate.most:  # there may be something better
        steps += _training(versions, recipes, run, general)
    return Advice(best.name, best.facts.get("scale"), steps)


def _chosen(best: Version, tuned: Version, gate: Gate, run: str) -> Step:
    worst, lost = gate.worst(best), gate.worst(tuned)
    assert worst is not None and lost is not None
    here = gate.drops(best)[lost["ability"]][0]
    most = "" if worst["ability"] == lost["ability"] else f" (most here: {worst['ability']}, {worst['drop']:.3f})"
    why = (
        f"{lost['ability']} drops by {lost['drop']:.3f} as tuned, by {here:.3f} so{most}; the task's value is "
        f"{number(tuned.value(gate.task))} as tuned, {number(best.value(gate.task))} so{_sure(gate, best)}"
    )
    scale = best.facts.get("scale")
    if scale is not None:
        made = (f"tuneloop remedy {run} --apply scale", f"tuneloop merge {run} --scale {scale:g} --out FOLDER")
        return Step(f"take scale {scale:g}", why, made)
    return Step(f"take {best.name} ({best.facts['says']})", why, (f"tuneloop chat {best.facts['run']}",))


def _none(versions: Sequence[Version], gate: Gate) -> Step:
    tried = [(worst["drop"], one.name, worst["ability"]) for one in versions[1:] if (worst := gate.worst(one))]
    drop, name, ability = min(tried)
    why = f"the nearest is {name}, where {ability} still drops by {drop:.3f} (gate: {gate.most:g})"
    return Step("nothing that was tried passes the gate", why)


def _training(
    versions: Sequence[Version], recipes: Mapping[str, tuple[str, Path]], run: str, general: str | None
) -> list[Step]:
    """What needs training and was not tried yet, in the order of what the literature finds to help."""
    done = {one.facts.get("remedy") for one in versions}
    reasons = {
        "replay": "general rows beside the domain's in each epoch: the cheapest strong cure where there are rows",
        "keep": "KL to the base on general prompts: needs no answers, costs passes of both models in each step",
        "epochs": "less training forgets less, and learns less",
    }
    steps = [
        Step(f"try {name}", f"{reasons[name]} ({says})", (f"tuneloop run {path}",))
        for name, (says, path) in recipes.items()
        if name not in done
    ]
    if general is None:
        why = "replay and KL to the base need rows of the kind that must not be forgotten, other ones than the probes"
        command = f"tuneloop remedy {run} --general FILE --apply replay --apply keep"
        steps.insert(0, Step("give general rows", why, (command,)))
    return steps


def _sure(gate: Gate, version: Version) -> str:
    worst = gate.worst(version)
    assert worst is not None
    if worst["at_worst"] <= gate.most:
        return "; the intervals are within the gate too"
    return f"; the intervals reach {worst['at_worst']:.3f}: more probes would make it certain"


def _value(version: Version, gate: Gate) -> float:
    """The task's value, larger is better; one that was not measured is worst."""
    value = version.value(gate.task)
    lower = version.abilities[gate.task]["better"] == "lower"
    return float("-inf") if value is None else -value if lower else value
