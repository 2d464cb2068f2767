from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tests.unit.evaluate.test_pages import CONTEXT, EVIL, report
from tests.unit.pages.whole import check
from tuneloop.evaluate.details import shown
from tuneloop.evaluate.page import bar, to_html
from tuneloop.evaluate.report import Report, to_markdown
from tuneloop.evaluate.table import to_rich

__all__ = ["report"]  # a fixture

DETAILS: dict[str, Any] = {
    "confusion": {
        "kind": "confusion",
        "labels": [EVIL, "b"],
        "columns": [EVIL, "b", "none"],
        "counts": [[3, 1, 0], [0, 0, 0]],
    },
    "reliability": {
        "kind": "reliability",
        "bins": [
            {"low": 0.5, "high": 0.6, "n": 4, "confidence": 0.55, "accuracy": 0.5},
            {"low": 0.9, "high": 1.0, "n": 6, "confidence": 0.95, "accuracy": 1.0},
        ],
    },
    "counts": {"kind": "counts", "counts": {EVIL: 3, "right": 7}},
    "agreement": {
        "kind": "agreement",
        "value": 0.8,
        "low": 0.7,
        "high": 0.9,
        "n": 5,
        "by": [{"share": 0.6, "n": 2, "right": 1}],
    },
    "table": {"kind": "table", "title": "by rater", "head": ["rater", "kappa"], "rows": [[EVIL, 0.5], ["b", None]]},
    "judge": {"kind": "judge", "wins": 3, "people": {"kappa": 0.4, "n": 20}, "first_preferred": None},
    "of another plug-in": {"anything": [1, 2.5, "x"], "deep": {"er": {"still": EVIL}}},
}  # fmt: skip


def test_every_kind_has_rows_as_long_as_its_head() -> None:
    for given in DETAILS.values():
        (one,) = shown("m", {"tuned": given})
        assert one.rows and all(len(row) == len(one.head) for row in one.rows), given
        assert not one.shades or [len(row) for row in one.shades] == [len(row) - 1 for row in one.rows]
    (confusion,) = shown("m", {"tuned": DETAILS["confusion"]})
    assert confusion.rows[0] == [EVIL, "3", "1", "0"] and confusion.shades == [[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]]
    (judge,) = shown("m", {"tuned": DETAILS["judge"]})
    assert ["people kappa", "0.400"] in judge.rows and ["first preferred", "–"] in judge.rows
    assert len(shown("m", {"tuned": [DETAILS["counts"], DETAILS["table"]], "base": DETAILS["counts"]})) == 3


@pytest.mark.parametrize("kind", DETAILS)
def test_pages_show_them_and_stay_safe(report: Report, kind: str) -> None:
    metrics = {name: {**entry, "details": {"tuned": DETAILS[kind]}} for name, entry in report.value["metrics"].items()}
    found = replace(report, value={**report.value, "metrics": metrics})
    page = to_html(found, CONTEXT)
    check(page)
    assert "In detail" in page
    text = to_markdown(found, replace(CONTEXT, run="runs/1"))
    assert "### exact\\_match, tuned" in text and "<script>" not in text.replace("\\<script\\>", "")
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(to_rich(found))
    assert "exact_match, tuned" in console.export_text()


def test_bars_of_unbounded_metrics_have_a_scale_of_their_own() -> None:
    def x(first: dict[str, float], second: dict[str, float], facts: dict[str, Any]) -> list[float]:
        import re

        return [float(found) for found in re.findall(r'cx="([\d.]+)"', bar(first, second, facts))]

    short, long = {"value": 20.0, "low": 18.0, "high": 22.0}, {"value": 80.0, "low": 75.0, "high": 100.0}
    first, second = x(short, long, {"aggregation": "mean", "bounded": False})
    assert first == pytest.approx(3 + 154 * 0.2, abs=0.1) and second == pytest.approx(3 + 154 * 0.8, abs=0.1)
    assert x(short, long, {"aggregation": "mean"}) == [157.0, 157.0], "cut where 1 is the most there can be"
    below = {"value": -5.0, "low": -10.0, "high": 0.0}
    assert x(below, short, {"aggregation": "corpus", "bounded": False})[0] == pytest.approx(3 + 154 * 5 / 32, abs=0.1)
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    assert x(nothing, nothing, {"bounded": False}) == []  # type: ignore[arg-type]
