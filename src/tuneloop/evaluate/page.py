"""report.html: one self-contained page without scripts. Prepares what the template shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tuneloop.core import digest
from tuneloop.evaluate import forgetting_view, watch_page
from tuneloop.evaluate.details import shown
from tuneloop.evaluate.metrics import METRICS
from tuneloop.evaluate.report import Context, Report, contestants, notes, verdict
from tuneloop.pages import drawing, training
from tuneloop.pages.numbers import percent, probability
from tuneloop.pages.page import render

if TYPE_CHECKING:
    from markupsafe import Markup

Json = dict[str, Any]
SAMPLES = 10


def to_html(report: Report, context: Context) -> str:
    """The page, inside the frame that all pages share."""
    value = report.value
    primary = primary_metric(value)
    return render(
        "tuneloop.evaluate",
        "report.html.jinja",
        title=context.title,
        context=context,
        report=value,
        percent=percent(value["confidence"]),
        contestants=contestants(value),
        metrics=[_row(name, entry, entry, value) for name, entry in value["metrics"].items()],
        notes=notes(value),
        slices={key: _slice(rows, value) for key, rows in value["slices"].items()},
        details=[one for name, entry in value["metrics"].items() for one in shown(name, entry.get("details", {}))],
        forgetting=_forgetting(value),
        charts=training.charts(context.curves),
        watch=watch_page.view(value, context),
        primary=primary,
        samples=[_sample(line, primary, value) for line in pick_samples(report.samples, primary)],
        card=_card(context.card),
    )


def primary_metric(report: Json) -> str | None:
    """The first metric that judges answers; samples are coloured by it."""
    needs = {name: METRICS.load(name).NEEDS for name in report["metrics"] if name in METRICS.names()}
    return next((name for name in report["metrics"] if needs.get(name) == "generation"), None)


# -- numbers ----------------------------------------------------------------------------------------------------------
def _row(label: str, entry: Json, facts: Json, report: Json) -> Json:
    """One line of a table: texts, verdict and the bar of both intervals. `facts` holds the metric's own facts."""
    change = entry.get("difference")
    return {
        "label": label,
        "base": entry.get("base"),
        "tuned": entry.get("tuned"),
        "change": change,
        "n": (entry.get("tuned") or {}).get("n", 0),
        "p": probability(change.get("p_holm", change["p"])) if change else "–",
        "verdict": verdict(change, facts["better"], report["confidence"]),
        "better": facts["better"],
        "signature": facts.get("signature", ""),
        "bar": bar(entry.get("base"), entry.get("tuned"), facts),
    }


def bar(first: Json | None, second: Json | None, facts: Json) -> Markup:
    """Both intervals on one scale: 0 to 1, or of a metric that is no share of 1 around its own intervals and 0.

    Geometric means have a logarithmic scale, on which 1 is the beginning.
    """
    log = facts.get("aggregation") == "geometric"
    drawn = [_scaled(part, log) for part in (first, second)]
    if facts.get("bounded", True) and not log:
        return drawing.intervals_bar(drawn[0], drawn[1], 0.0, 1.0)
    ends = [part[key] for part in drawn if part and part["low"] is not None for key in ("low", "high")]
    return drawing.intervals_bar(drawn[0], drawn[1], min([0.0, *ends]), max([0.0, *ends]))


def _scaled(value: Json | None, log: bool) -> Json | None:
    if not log or value is None or value["value"] is None:
        return value
    return {key: math.log(max(value[key], 1e-9)) for key in ("value", "low", "high")}


def _slice(rows: Json, report: Json) -> list[Json]:
    return [
        {"label": label, "metrics": [_row(name, entry[name], report["metrics"][name], report) for name in entry]}
        for label, entry in rows.items()
    ]


def _forgetting(report: Json) -> Json | None:
    value = report.get("forgetting")
    return forgetting_view.on_page(value, partial(_row, report=report)) if value else None


# -- samples ----------------------------------------------------------------------------------------------------------
def pick_samples(samples: Sequence[Json], primary: str | None) -> list[Json]:
    """Ten lines, the same each time: at most four where the tuned model is not right, the rest where it is.

    Within both, what tuning changed comes first and kinds take turns, so that no kind fills the page.
    """
    answered = [line for line in samples if line.get("tuned") is not None]
    answered.sort(key=lambda line: digest.of_value(line["id"]))
    wrong = _by_turns([line for line in answered if (_score(line, primary, "tuned") or 0) < 1], primary)
    right = _by_turns([line for line in answered if (_score(line, primary, "tuned") or 0) >= 1], primary)
    few = min(len(wrong), max(4, SAMPLES - len(right)))
    return [*right[: SAMPLES - few], *wrong[:few]]


def _by_turns(lines: Sequence[Json], primary: str | None) -> list[Json]:
    queues: dict[str, list[Json]] = {}
    for line in sorted(lines, key=lambda line: _score(line, primary, "base") == _score(line, primary, "tuned")):
        meta = line.get("meta", {})
        queues.setdefault(digest.of_value([meta.get("kind"), meta.get("language")]), []).append(line)
    longest = max(map(len, queues.values()), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues.values() if turn < len(queue)]


def _score(line: Json, metric: str | None, who: str) -> float | None:
    return line["scores"].get(metric, {}).get(who) if metric else None


def _sample(line: Json, primary: str | None, report: Json) -> Json:
    """One question with its answers; a partly right one lies between 0 and 1."""
    prompt = line["prompt"]
    said = []
    for name in contestants(report):
        score = _score(line, primary, name)
        state = "unscored" if score is None else "right" if score >= 1 else "wrong" if score <= 0 else "partly"
        said.append({"who": name, "text": line.get(name), "state": state, "score": score})
    tags = [str(line["meta"][key]) for key in ("kind", "language", "wording") if line.get("meta", {}).get(key)]
    return {
        "before": prompt[:-1],
        "asked": prompt[-1] if prompt else None,
        "reference": line["reference"],
        "said": said,
        "tags": tags,
    }


# -- data card --------------------------------------------------------------------------------------------------------
def _card(card: Mapping[str, Any]) -> Json | None:
    """Rows in, kept and dropped by step, with their shares for the drawn strip."""
    rows = card.get("rows")
    if not rows:
        return None
    total = max(1, rows.get("in", 0))
    dropped = sorted(rows.get("dropped", {}).items(), key=lambda item: (-item[1], item[0]))
    return {
        "rows": rows,
        "kept_share": 100 * rows.get("kept", 0) / total,
        "dropped": [{"step": step, "count": count, "share": 100 * count / total} for step, count in dropped],
        "splits": card.get("splits", {}),
        "findings": [_finding(finding) for finding in card.get("findings", [])],
    }


def _finding(finding: Mapping[str, Any]) -> Json:
    rest = {key: value for key, value in finding.items() if key not in ("level", "code", "count", "message")}
    text = finding.get("message") or ", ".join(f"{key}: {value}" for key, value in rest.items())
    shown = {key: str(finding.get(key, "")) for key in ("level", "code", "count")}
    return {**shown, "text": text}
