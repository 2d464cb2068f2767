"""The overfitting watch on the report's page: whole, safe, and only what was watched."""

from __future__ import annotations

from typing import Any

from tests.unit.pages.whole import check
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.evaluate.contestant import Answer
from tuneloop.evaluate.memorisation import memorisation_report
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics.exact_match import ExactMatch
from tuneloop.evaluate.page import to_html
from tuneloop.evaluate.report import Context, Report
from tuneloop.evaluate.scoring import summary
from tuneloop.pages.answers import SHOWN, changes

EVIL = '<script>alert("x")</script> & | `码` </pre>'
LONG = f"one two three four five six seven eight nine {EVIL}"


def row(number: int, answer: str) -> Example:
    return Example((Message("user", f"q{number}"), Message("assistant", answer)), Origin(EVIL, number))


def line(step: int, id_: str, answer: str | None) -> dict[str, Any]:
    prompt = [{"role": "system", "content": EVIL}, {"role": "user", "content": f"问{id_} {EVIL}"}]
    return {"step": step, "id": id_, "prompt": prompt, "reference": "right", "answer": answer, "scores": {}}


def page(memorised: Any = None, **context: Any) -> str:
    scores = {"tuned": [Score(1.0)] * 3}
    value = {
        "version": 1, "split": "test", "n": 3, "confidence": 0.95, "slices": {}, "answers": {},
        "metrics": {"exact_match": summary(ExactMatch(), scores, 0.95)},
        **({"memorisation": memorised} if memorised else {}),
    }  # fmt: skip
    return to_html(Report(value, []), Context(**context))


def test_all_of_it_is_shown_and_escaped() -> None:
    examples = [row(number, f"a reference of more than eight words, this is number {number}") for number in range(3)]
    given = {"base": [Answer("hm", True)] * 3, "tuned": [Answer(LONG, True)] * 3}
    memorised = memorisation_report(examples, given, [row(7, LONG)], 0.95)
    canaries = {"planted": 4, "repeat": 2, "alternatives": 255, "ceiling": 8.0, "exposure": 5.5, "first": 3, "p": 1e-9}
    found = [{"kind": "overfits", "metric": "loss", "step": 8, "text": EVIL}]
    answers = [line(5, "1", EVIL), line(9, "1", "right"), line(5, "2", None), line(9, "2", "")]
    html = page(memorised, watch={"findings": found, "canaries": canaries}, answers=answers)
    check(html)
    for words in (
        "Overfitting watch",
        "answers of tuned",
        "100 %",
        "5.500",
        "3 of 4 rank first",
        "no answer",
        "(empty)",
    ):
        assert words in html, words
    assert ", row 7</td>" in html and "&lt;script&gt;" in html
    assert '<span class="chip better">right</span>' in html


def test_nothing_watched_is_no_section() -> None:
    assert "Overfitting watch" not in page() and "Overfitting watch" not in page(watch={"findings": [], "loss_gap": []})
    short = memorisation_report([row(1, "yes")], {"tuned": [Answer("no", True)]}, [row(2, "yes")], 0.95)
    assert "nothing can be repeated" in page(short)


def test_equal_answers_in_a_row_are_one() -> None:
    lines = [line(step, "1", text) for step, text in ((5, "a"), (9, "a"), (12, "right "), (15, "a"))]
    (shown,) = changes(lines)
    assert [(one["first"], one["last"], one["text"], one["right"]) for one in shown["said"]] == [
        (5, 9, "a", False), (12, 12, "right ", True), (15, 15, "a", False)
    ]  # fmt: skip
    assert shown["asked"].startswith("… 问1")
    assert changes([]) == []
    (long,) = changes([line(step, "1", str(step)) for step in range(10)])
    assert [one["text"] for one in long["said"]] == ["0", "5", "6", "7", "8", "9"] and long["left_out"] == 4
    many = changes([line(step, str(number), "a") for step in (1, 2) for number in range(50)])
    assert len(many) <= SHOWN and many[-1]["asked"].startswith("… 问4"), "evenly from all"
