"""The release gate: non-inferiority of every run to the reference, by the worse end of a paired interval.

Legend: gain = change in the good direction; margin = the loss that is allowed.
"""

from __future__ import annotations

from typing import Any, Literal

from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.evaluate.comparing import Comparison
from tuneloop.evaluate.config import GateConfig
from tuneloop.pages.numbers import number, percent

Json = dict[str, Any]
Verdict = Literal["pass", "worse", "not enough evidence"]
EXIT: dict[Verdict, int] = {"pass": 0, "worse": 3, "not enough evidence": 4}
"""Exit codes of `tuneloop compare --gate`; 2 is a user's error as everywhere."""


SEVERITY: tuple[Verdict, ...] = ("pass", "not enough evidence", "worse")


def parse(text: str) -> dict[str, float]:
    """`exact_match=0.02,f1=0.02` → metric and margin. Raises DataError for anything else."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, margin = (piece.strip() for piece in part.partition("="))
        try:
            value = float(margin)
        except ValueError:
            value = -1.0
        if not (name and equals and 0 <= value < float("inf")) or name in found:
            problem = f"'{name}' stands twice" if name in found else f"'{part.strip()}' is no METRIC=MARGIN"
            raise DataError(f"--gate {text}: {problem}; e.g. --gate exact_match=0.02,f1=0.02")
        found[name] = value
    return found


def decide(comparison: Comparison, gate: GateConfig) -> Json:
    """{"verdict", "exit", "rows": [...], "words": [...]}: every run by every metric of the gate; the worst decides.

    `pass`: the whole interval lies above -margin. `worse`: all of it lies below. `not enough evidence`: it holds both,
    or fewer than `least` examples were scored on both sides. Raises DataError for a metric that was not compared.
    """
    known = list(comparison.given)
    for name in gate.worse_by:
        if name not in known:
            raise DataError(f"gate: the metric '{name}' is not compared{did_you_mean(name, known)}; {', '.join(known)}")
        if comparison.facts[name]["better"] == "neither":
            raise DataError(f"gate: of {name} neither more nor less is better, so nothing can be worse")
    measured = comparison.measured(gate.confidence)
    rows: list[Json] = []
    for pair in comparison.pairs:
        for name, margin in gate.worse_by.items():
            change = measured[name].differences[pair]
            rows.append(_row(pair[1], name, comparison.facts[name]["better"], change, margin, gate))
    verdicts: list[Verdict] = [row["verdict"] for row in rows]
    worst = max(verdicts, key=SEVERITY.index)
    return {
        "verdict": worst, "exit": EXIT[worst], "confidence": gate.confidence, "least": gate.least,
        "reference": comparison.sides[0].name, "rows": rows, "words": [row["words"] for row in rows],
    }  # fmt: skip


def _row(run: str, metric: str, better: str, change: Json, margin: float, gate: GateConfig) -> Json:
    gain = _gain(change, better)
    verdict, why = _judge(gain, change["n"], margin, gate)
    words = f"{verdict}: {run}, {metric}: {why}; margin {number(margin)}"
    return {"run": run, "metric": metric, "verdict": verdict, "margin": margin, **change, "gain": gain, "words": words}


def _gain(change: Json, better: str) -> Json | None:
    """The change with its interval, positive where it is for the better; None where nothing was measured."""
    if change["value"] is None:
        return None
    if better == "higher":
        return {key: change[key] for key in ("value", "low", "high")}
    return {"value": -change["value"], "low": -change["high"], "high": -change["low"]}


def _judge(gain: Json | None, n: int, margin: float, gate: GateConfig) -> tuple[Verdict, str]:
    if gain is None:
        return "not enough evidence", "no example was scored on both sides"
    share = percent(gate.confidence)
    ends = f"{number(gain['low'], True)} to {number(gain['high'], True)}"
    told = f"gain {number(gain['value'], True)} ({share}: {ends}), n {n}"
    if n < gate.least:
        return "not enough evidence", f"{told} of at least {gate.least}"
    if not gain["low"] <= gain["high"]:  # NaN
        return "not enough evidence", f"{told}: no interval can be given"
    if gain["low"] >= -margin:
        return "pass", told
    return ("worse", told) if gain["high"] < -margin else ("not enough evidence", told)
