"""Exports of annotation tools: the real one, round trips of made ones, what `auto` says, and what is no export."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data.annotation_exports import (
    MIN,
    POEM,
    RECORD,
    WORDS,
    Read,
    annotation,
    as_csv,
    chosen_format,
    doc,
    json_min,
    read,
    result,
    task,
    votes,
)
from tuneloop.core.conversation import Example, Origin
from tuneloop.core.errors import DataError
from tuneloop.core.jsonl import dump
from tuneloop.data.config import SourceConfig
from tuneloop.data.formats import FORMATS
from tuneloop.data.read import open_source
from tuneloop.data.source import recognise


@pytest.fixture
def real(shared: Path) -> list[dict[str, Any]]:
    return json.loads((shared / "label_studio" / "export_1.23.2.json").read_text("utf-8"))


def test_the_real_export_two_annotators_do_not_agree(real: list[dict[str, Any]]) -> None:
    assert chosen_format(real) == ("label_studio", 1.0)
    tied, skipped = read("label_studio", real).drops
    assert "do not agree on 'rewrite'" in tied.reason
    assert tied.evidence["votes"] == [{"value": "改写一", "raters": ["1"]}, {"value": "改写二", "raters": ["2"]}]
    assert skipped.reason == "not annotated: everyone who saw the item skipped it"


def test_the_real_export_newest_or_the_datas_own_answer(real: list[dict[str, Any]]) -> None:
    newest = read("label_studio", real, agree="newest")
    assert newest.turns == [[("user", "写一首诗"), ("assistant", "改写二")]]
    meta = newest.rows[0].meta
    assert (meta["label"], meta["quality"], meta["issues"], meta["score"]) == (
        "reasoning/common sense", "bad", ["factual", "style"], 2,
    )  # fmt: skip
    assert meta["response"] == "春眠不觉晓", "what was rewritten stays visible"
    assert [(one["rater"], one["item"], one["values"]["issues"]) for one in meta["annotations"]] == [
        ("1", "1", ["style"]), ("2", "1", ["factual", "style"]),
    ]  # fmt: skip
    own = read("label_studio", real, response="response")
    assert own.answers == ["春眠不觉晓"]
    assert own.rows[0].meta["score"] == 3.0, "ratings are averaged"
    assert "quality" not in own.rows[0].meta and any("'quality'" in note for note in own.rows[0].notes)
    assert read("label_studio", real, response="response", unannotated="keep").answers == ["春眠不觉晓", "hello"]


VALUES = {
    "quality": WORDS,
    "issues": st.lists(WORDS, min_size=1, max_size=3, unique=True),
    "score": st.integers(1, 5),
    "count": st.one_of(st.integers(-9, 9), st.floats(-9, 9).map(lambda number: round(number, 3))),
    "rewrite": st.lists(WORDS, min_size=1, max_size=2),
    "task": st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=2, unique_by="/".join),
    "better": st.sampled_from(["left", "right"]),
    "ner": st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), WORDS), min_size=1, max_size=3),
}  # fmt: skip
PROJECTS = st.lists(  # tasks; each a list of raters' answers by control
    st.lists(st.fixed_dictionaries({}, optional=VALUES).filter(bool), min_size=1, max_size=3), min_size=1, max_size=3
)
LABELS = ("issues", "task")


def exported(project: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    for number, raters in enumerate(project, 1):
        entries = []
        for rater, said in enumerate(raters, 1):
            results = []
            for control, value in said.items():
                if control == "ner":
                    results += [result(control, {"start": s, "end": s + n, "text": "t", "labels": [label]})
                                for s, n, label in value]  # fmt: skip
                else:
                    results.append(result(control, [value] if control == "quality" else value))
            entries.append(annotation(rater, results, rater))
        tasks.append(task(number, {"prompt": f"p{number}", "response": "r"}, *entries))
    return tasks


def expected(project: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """What the annotations say, in the shape of meta["annotations"]."""
    several = {name for raters in project for said in raters for name in LABELS if len(said.get(name, ())) > 1}

    def value(name: str, given: Any) -> Any:
        if name in LABELS:
            given = sorted("/".join(one) if isinstance(one, list) else one for one in given)
            return given if name in several else given[0]
        if name == "ner":
            spans = [{"start": s, "end": s + n, "text": "t", "label": label} for s, n, label in given]
            return sorted(spans, key=lambda span: (span["start"], span["end"]))
        return given[0] if name == "rewrite" and len(given) == 1 else given

    nowhere = {"ner": []} if any("ner" in said for raters in project for said in raters) else {}
    return [
        [nowhere | {name: value(name, given) for name, given in said.items()} for said in raters] for raters in project
    ]


def said(found: Read) -> list[list[dict[str, Any]]]:
    """The values by task and rater."""
    assert not found.drops
    return [[one["values"] for one in sorted(row, key=lambda one: int(one["rater"]))] for row in found.annotations]


@settings(max_examples=60)
@given(PROJECTS)
def test_label_studio_gives_back_what_was_annotated(project: list[list[dict[str, Any]]]) -> None:
    found = read("label_studio", exported(project), response="response")
    assert said(found) == expected(project)
    assert [row[0]["item"] for row in found.annotations] == [str(n) for n in range(1, len(project) + 1)]
    for row in found.rows:
        example = Example(row.messages, Origin("made", 0), row.tools, row.meta)
        assert Example.from_json(json.loads(dump(example.to_json()))) == example


@settings(max_examples=60)
@given(PROJECTS)
def test_json_min_and_csv_give_back_what_was_annotated(project: list[list[dict[str, Any]]]) -> None:
    rows = json_min(exported(project))
    assert said(read("label_studio_min", rows, response="response")) == expected(project)
    cells = as_csv(rows, data=["prompt", "response"])
    given_ = read("label_studio_min", cells, response="response", controls=list(VALUES))
    assert said(given_) == expected(project)


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (task(1, {"prompt": "q", "response": "a", "instruction": "i", "output": "o"}), "label_studio"),
        ({**MIN, "instruction": "i", "output": "o", "text": "t"}, "label_studio_min"),
        ({**MIN, "conversations": [{"from": "human", "value": "q"}]}, "label_studio_min"),
        (doc(1, "t", label=["a"], question="q"), "doccano"),
        ({"id": 1, "text": "t", "label": [[0, 1, "A"]]}, "doccano"),
        ({"id": 1, "text": "t", "label": []}, "doccano"),
        (RECORD, "argilla"),
        ({"text": "t", "label": ["a"]}, None),
        ({"text": "t", "label": "a", "id": 1}, None),
        ({"id": 1, "data": "t", "annotations": []}, None),
        ({"fields": {"a": "b"}, "responses": []}, None),
    ],
)
def test_auto_is_certain_or_asks(record: dict[str, Any], name: str | None) -> None:
    if name is None:
        with pytest.raises(DataError):
            chosen_format([record] * 3)
    else:
        assert chosen_format([record] * 3)[0] == name


def test_auto_reads_the_other_real_files_as_before(shared: Path) -> None:
    for folder, name in (
        ("alpaca", "alpaca"),
        ("toolcalls", "sharegpt"),
        ("reasoning", "messages"),
        ("gsm8k", "prompt_response"),
    ):
        path = next(path for path in sorted((shared / folder).iterdir()) if path.suffix in (".json", ".jsonl"))
        text = path.read_text("utf-8")
        rows = (
            json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()[:50]]
        )
        assert chosen_format(rows[:50])[0] == name, path


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from("id data text label labels cats entities relations annotations result value from_name type "
                            "fields responses completed_by choices taxonomy annotator annotation_id lead_time".split()),
            inner, max_size=5,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


COLUMNS = (
    "id data annotations text label entities cats relations fields responses a.responses a.responses.users annotator "
    "annotation_id lead_time prompt __member__"
).split()
RECORDS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), JUNK, max_size=6), min_size=1, max_size=3)


@settings(max_examples=60)
@given(st.sampled_from(["label_studio", "label_studio_min", "doccano", "argilla"]), RECORDS)
def test_what_is_no_export_is_a_reason_and_never_a_crash(name: str, records: list[dict[str, Any]]) -> None:
    before = json.dumps(records)
    for record in records:
        assert 0 <= FORMATS.make(name).likeness(record) <= 1
    found = read(name, records)
    assert all(drop.reason for drop in found.drops)
    assert json.dumps(records) == before


# -- through the whole reading -----------------------------------------------------------------------------------------
def test_a_zip_of_members_becomes_rows_with_every_members_word(loaded: Callable[..., Any]) -> None:
    files = {
        "alice": [doc(1, "差评", label=["neg"]), doc(2, "好评", label=["pos"])],
        "bob": [doc(1, "差评", label=["neg"]), doc(2, "好评", label=["neg"])],
        "carol": [],
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, rows in files.items():
            archive.writestr(f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    source = loaded("export.zip", out.getvalue())
    assert source.recognition.format == "doccano" and source.recognition.rows == 2
    (example,), (drop,) = source.examples, source.drops
    assert [(one["rater"], one["values"]) for one in example.meta["annotations"]] == [
        ("alice", {"label": "neg"}),
        ("bob", {"label": "neg"}),
    ]
    assert drop.origin.row == 1 and drop.evidence["votes"][0] == {"value": "pos", "raters": ["alice"]}


def test_a_format_with_options_reads_a_file(loaded: Callable[..., Any]) -> None:
    tasks = [task(1, POEM, *votes("good", "bad"))]
    source = loaded("tasks.json", tasks, format={"label_studio": {"label": "quality", "agree": "newest"}})
    assert source.examples[0].meta["label"] == "bad"
    flat = loaded("min.json", json_min(tasks), format="auto")
    assert (flat.recognition.format, flat.recognition.rows, flat.recognition.confidence) == ("label_studio_min", 1, 1.0)


def test_the_documentation_lists_every_format() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text("utf-8")
    assert [name for name in FORMATS.names() if f"| `{name}` |" not in text] == []


def test_exports_without_a_join_are_read_in_pieces_that_know_the_whole_file(write: Callable[..., str]) -> None:
    tasks = [task(n, {"prompt": f"p{n}"}, annotation(1, [result("quality", ["a", "b"] if n == 7 else ["a"])]))
             for n in range(8)]  # fmt: skip
    small = replace(recognise(SourceConfig(path=write("a.jsonl", tasks)), seed=1), parts=())
    raw = open_source(small.path, rows_a_piece=3)
    assert len(raw.pieces) == 3
    again = pickle.loads(pickle.dumps(small))
    rows = [row for piece in raw.pieces for row in again.read((piece,), Counter())]
    assert [row.origin.row for row in rows] == list(range(8))
    assert all(isinstance(row, Example) for row in rows)
    assert rows[0].meta["annotations"][0]["values"] == {"quality": ["a"]}, "a list, since row 7 has two"
