"""Several raters of one item: who counts, how they settle, and that every rater's word is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.data.annotation_exports import (
    POEM,
    REVIEW,
    annotation,
    chosen_format,
    read,
    reason,
    result,
    task,
    votes,
)


@pytest.mark.parametrize(
    ("labels", "agree", "answer"),
    [
        (["a", "b", "b"], "majority", "b"),
        (["a", "b"], "majority", None),
        (["a", "b", "c", "b", "a"], "majority", None),
        (["a", "a"], "unanimous", "a"),
        (["a", "a", "b"], "unanimous", None),
        (["a", "b"], "newest", "b"),
        (["a", "b"], "first", "a"),
    ],
)
def test_how_raters_settle(labels: list[str], agree: str, answer: str | None) -> None:
    found = read("label_studio", [task(1, REVIEW, *votes(*labels))], agree=agree)
    assert found.answers == ([answer] if answer else [])
    if answer is None:
        raters = [rater for vote in found.drops[0].evidence["votes"] for rater in vote["raters"]]
        assert sorted(raters) == sorted(str(n) for n in range(1, len(labels) + 1)), "every vote is in the evidence"


def test_ground_truth_goes_first_then_trusted_raters() -> None:
    entries = votes("a", "b", "b")
    entries[0]["ground_truth"] = True
    assert read("label_studio", [task(1, REVIEW, *entries)]).answers == ["a"]
    assert read("label_studio", [task(1, REVIEW, *entries)], trusted=["2"]).answers == ["a"]
    assert read("label_studio", [task(1, REVIEW, *votes("a", "b", "b"))], trusted=[1]).answers == ["a"]
    assert read("label_studio", [task(1, REVIEW, *votes("a", "b", "b"))], trusted=["1", "9"]).answers == ["a"]


def test_a_skipped_annotation_is_missing_and_no_class() -> None:
    entries = votes("a", "b", "b")
    entries[1]["was_cancelled"] = entries[2]["was_cancelled"] = True
    found = read("label_studio", [task(1, REVIEW, *entries)])
    assert found.answers == ["a"]
    assert [(one["values"], one.get("cancelled")) for one in found.annotations[0]] == [
        ({"quality": "a"}, None), ({}, True), ({}, True),
    ]  # fmt: skip


def test_an_open_question_is_missing_and_no_class() -> None:
    entries = [
        annotation(1, [result("quality", ["good"]), result("score", 5)]), annotation(2, [result("score", 2)], 2),
    ]  # fmt: skip
    found = read("label_studio", [task(1, REVIEW, *entries)])
    assert found.answers == ["good"]
    assert found.annotations[0][1]["values"] == {"score": 2}


def test_a_rater_who_annotated_twice_has_one_vote_the_newest() -> None:
    entries = [annotation(rater, [result("quality", [label])], n) for n, (rater, label) in
               enumerate([(1, "a"), (1, "a"), (2, "b"), (3, "b"), (1, "b")], 1)]  # fmt: skip
    assert read("label_studio", [task(1, REVIEW, *entries)]).answers == ["b"]
    assert read("label_studio", [task(1, REVIEW, *entries[:3])]).rows == [], "one vote each is a tie"


def test_newest_goes_by_time_not_by_place_and_reads_times_without_fractions() -> None:
    entries = votes("old", "new")
    entries[0]["updated_at"], entries[1]["updated_at"] = "2026-11-22T01:00:00Z", "2026-11-22T01:00:00.5Z"
    for order in (entries, entries[::-1]):
        assert read("label_studio", [task(1, REVIEW, *order)], agree="newest").answers == ["new"]


def test_newest_takes_one_annotation_as_a_whole() -> None:
    entries = [
        annotation(1, [result("quality", ["bad"]), result("rewrite", ["neu"])]),
        annotation(2, [result("quality", ["good"])], 2),
    ]
    found = read("label_studio", [task(1, POEM, *entries)], agree="newest")
    assert found.answers == ["春眠不觉晓"], "whoever found it good did not want the rewrite"


def test_each_of_several_choices_and_spans_is_voted_on() -> None:
    sets = (["factual", "style"], ["style"], ["style", "tone"])
    entries = [annotation(n, [result("issues", chosen)], n) for n, chosen in enumerate(sets, 1)]
    found = read("label_studio", [task(1, REVIEW, *entries)])
    assert found.answers == ["style"]
    assert found.annotations[0][1]["values"]["issues"] == ["style"], "always a list where several could be chosen"
    assert read("label_studio", [task(1, REVIEW, *entries[:2])]).drops, "one of two is a tie"

    def span(start: int, label: str) -> dict[str, Any]:
        return result("ner", {"start": start, "end": start + 1, "text": "x", "labels": [label]})

    marks = ([span(0, "A"), span(4, "B")], [span(4, "B"), span(0, "A")], [span(0, "A"), span(2, "C")])
    entries = [annotation(n, marked, n) for n, marked in enumerate(marks, 1)]
    found = read("label_studio", [task(1, {"text": "x x x"}, *entries)])
    assert [one["label"] for one in json.loads(found.answers[0])] == ["A", "B"]


def test_several_texts_of_one_rater_are_several_answers() -> None:
    record = [task(1, POEM, annotation(1, [result("rewrite", ["eins", "zwei"])]))]
    assert read("label_studio", record).drops[0].evidence["votes"][1] == {"value": "zwei", "raters": ["1"]}
    assert read("label_studio", record, agree="first").answers == ["eins"]
    assert read("label_studio", record, agree="newest").answers == ["zwei"]


def test_texts_that_differ_by_outer_spaces_agree() -> None:
    entries = [annotation(n, [result("rewrite", [text])], n) for n, text in enumerate(("neu", "neu\n"), 1)]
    assert read("label_studio", [task(1, POEM, *entries)]).answers == ["neu"]


def test_a_tie_about_a_named_label_drops_about_another_question_it_does_not() -> None:
    tied = [task(1, POEM, *votes("good", "bad"))]
    found = read("label_studio", tied)
    assert found.answers == ["春眠不觉晓"] and "label" not in found.rows[0].meta and found.rows[0].notes
    assert "do not agree on 'quality'" in reason(read("label_studio", tied, label="quality"))


@pytest.mark.parametrize(
    ("person", "rater"),
    [(7, "7"), ({"id": 7, "email": "li@x.cn", "first_name": "Li"}, "li@x.cn"), ({"id": 7}, "7"), (None, "")],
)
def test_who_annotated(person: Any, rater: str) -> None:
    assert read("label_studio", [task(1, REVIEW, *votes("a", completed_by=person))]).annotations[0][0]["rater"] == rater


def test_old_exports_with_completions() -> None:
    old = {"id": 3, "data": REVIEW, "completions": [
        {"id": 1, "created_at": 1609789589, "result": [result("quality", ["a"])]},
        {"id": 2, "created_at": 1609789599, "honeypot": True, "result": [result("quality", ["b"])]},
        {"id": 3, "created_at": 1609789609, "skipped": True, "result": [result("quality", ["c"])]},
    ]}  # fmt: skip
    assert chosen_format([old]) == ("label_studio", 1.0)
    assert read("label_studio", [old]).answers == ["b"]


def test_drafts_and_predictions_are_no_annotations() -> None:
    record = task(1, REVIEW)
    record["drafts"] = record["predictions"] = [{"result": [result("quality", ["a"])]}]
    assert reason(read("label_studio", [record])) == "not annotated: nobody answered any question"


def test_what_an_item_without_id_is_called() -> None:
    record = task(1, REVIEW, *votes("a"))
    del record["id"]
    same, other = read("label_studio", [record, {**record, "data": {"text": "other"}}]).annotations
    assert same[0]["item"] != other[0]["item"] and len(same[0]["item"]) == 16
