"""Label Studio's flat exports: what is data and what an answer, and whose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.annotation_exports import MIN, as_csv, chosen_format, json_min, read, reason, task, votes
from tuneloop.core.jsonl import dump


@pytest.fixture
def real(shared: Path) -> list[dict[str, Any]]:
    return json.loads((shared / "label_studio" / "export_1.23.2.json").read_text("utf-8"))


def test_json_min_joins_annotations_of_a_task() -> None:
    other = {**MIN, "quality": "good", "rewrite": "改写一", "annotator": 1, "annotation_id": 1,
             "updated_at": "2026-11-22T01:38:26.061831Z"}  # fmt: skip
    assert chosen_format([MIN, other]) == ("label_studio_min", 1.0)
    assert "'rewrite'" in reason(read("label_studio_min", [MIN, other]))
    found = read("label_studio_min", [MIN, other], agree="newest")
    assert found.turns == [[("user", "写一首诗"), ("assistant", "改写二")]]
    assert found.rows[0].meta["label"] == "reasoning/common sense"
    assert [one["values"] for one in found.annotations[0]] == [
        {
            "quality": quality,
            "issues": ["factual", "style"],
            "score": 2,
            "rewrite": text,
            "task": "reasoning/common sense",
        }
        for quality, text in (("bad", "改写二"), ("good", "改写一"))
    ]


def test_json_and_json_min_of_the_same_project_say_the_same(real: list[dict[str, Any]]) -> None:
    whole = read("label_studio", real, agree="newest").rows[0]
    flat = read("label_studio_min", json_min(real), agree="newest").rows[0]
    assert flat.messages == whole.messages
    assert whole.meta.pop("src") == "x", "the task's meta is in the JSON only"
    for meta in (flat.meta, whole.meta):
        meta["annotations"].sort(key=dump)
    assert flat.meta == whole.meta


def test_csv_of_one_annotator_each_finds_the_only_column_that_is_left() -> None:
    tasks = [task(n, {"text": f"review {n}"}, *votes(label)) for n, label in ((1, "good"), (2, "bad"))]
    rows = as_csv(json_min(tasks), data=["text"])
    assert chosen_format(rows) == ("label_studio_min", 1.0)
    found = read("label_studio_min", rows)
    assert found.answers == ["good", "bad"]
    assert found.annotations[0][0] | {"time": 0} == {
        "rater": "1", "item": "1", "values": {"quality": "good"}, "time": 0, "seconds": 1.5,
    }  # fmt: skip


def test_csv_columns_that_differ_within_a_task_are_answers() -> None:
    tasks = [task(1, {"text": "t", "site": "x"}, *votes("good", "good", "bad")), task(2, {"text": "u", "site": "y"})]
    found = read("label_studio_min", as_csv(json_min(tasks), data=["text", "site"]))
    assert found.answers == ["good"] and found.rows[0].meta["site"] == "x"
    lone = as_csv(json_min([task(1, {"text": "t", "site": "x"}, *votes("good"))]), data=["text", "site"])
    unclear = read("label_studio_min", lone).drops[0]
    assert "option `controls`" in unclear.reason and unclear.evidence["columns"] == ["quality", "site", "text"]
    assert read("label_studio_min", lone, controls=["quality"]).answers == ["good"]


def test_csv_gives_renamed_fields_their_name_back() -> None:
    rows = [{"_data_text": "t", "text": "good", "annotator": "1", "annotation_id": "1", "lead_time": "2.5", "id": "1",
             "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}]  # fmt: skip
    found = read("label_studio_min", rows, prompt="text")
    assert found.turns == [[("user", "t"), ("assistant", "good")]]


def test_the_same_id_in_two_projects_is_two_tasks() -> None:
    rows = [{**MIN, "prompt": prompt, "annotation_id": n} for n, prompt in enumerate("ab", 1)]
    assert [turns[0][1] for turns in read("label_studio_min", rows).turns] == ["a", "b"]


def test_data_with_an_id_of_its_own_does_not_make_its_fields_answers() -> None:
    about = {key: MIN[key] for key in ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")}
    row = {"id": 9, "text": "t", "site": "x", "quality": "good", **about}
    rows = [row, {**row, "quality": "good", "annotator": 3}, {**row, "quality": "bad", "annotator": 4}]
    found = read("label_studio_min", rows)
    assert found.answers == ["good"] and found.rows[0].meta["site"] == "x"


def test_a_task_exported_without_annotation() -> None:
    empty = {**dict.fromkeys(MIN), "prompt": "p", "response": "r", "id": 5}
    assert reason(read("label_studio_min", [empty])) == "not annotated: nobody answered any question"
    assert read("label_studio_min", [empty], unannotated="keep").answers == ["r"]


def test_files_of_an_archive_are_no_columns() -> None:
    row = {key: MIN[key] for key in ("prompt", "id", "quality", "annotator", "annotation_id", "lead_time")}
    found = read("label_studio_min", [{**row, "__member__": "a.json"}])
    assert found.answers == ["bad"] and "__member__" not in found.rows[0].meta
