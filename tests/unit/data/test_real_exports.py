"""Exports that the tools themselves wrote (see exports/README.md), against what was put into the tools."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data.conftest import Loaded, load_source
from tuneloop.core.errors import DataError

EXPORTS = Path(__file__).parent / "exports"
SKIPPED = "not annotated: everyone who saw the item skipped it"
SILENT = "not annotated: nobody answered any question"
TIE, JOINED = "the annotators do not agree on", "doccano's CSV joins labels by"
SCREEN, PHONE, EMOJI, HASH = (
    "屏幕很亮，电池不行。", "Great phone, terrible battery", '😀 太棒了！\n第二行/斜杠 "引号"', "a,b;c\t# hash",
)  # fmt: skip
NAMES = '[{"text":"张三","label":"%s"},{"text":"北京","label":"LOC"}]'
ALICE, BOB, CHEN = (
    "34bc79b3-8b52-48d3-85d5-e627ddb55d2f", "e511e23b-4c5f-4945-b230-29a5378a3aea",
    "70f654cb-9827-431a-a913-0a84490a72bd",
)  # fmt: skip


def load(name: str, **options: Any) -> Loaded:
    return load_source(str(EXPORTS / name), **options)


def answers(found: Loaded) -> dict[str, str]:
    """Prompt -> answer of the rows of one turn each."""
    assert all([message.role for message in row.messages] == ["user", "assistant"] for row in found.examples)
    return {row.messages[0].content: row.messages[1].content for row in found.examples}


def lost(found: Loaded) -> Counter[str]:
    """The reasons of dropped rows, without which question it was."""
    return Counter(drop.reason.split(" '")[0] for drop in found.drops)


def said(found: Loaded, row: int = 0) -> dict[str, Any]:
    """Rater -> values of a row, without raters who said nothing."""
    given = found.examples[row].meta["annotations"]
    return {one["rater"]: one["values"] for one in given if one["values"]}


@pytest.mark.parametrize(
    ("name", "expected", "dropped"),
    [
        ("single-jsonl", {SCREEN: "neg", PHONE: "pos", EMOJI: "pos", HASH: "c#"}, {TIE: 1, SILENT: 1}),
        ("multi-json", {SCREEN: "neg", EMOJI: "pos", HASH: "c#"}, {TIE: 2, SILENT: 1}),
        ("single-csv-confirmed", {SCREEN: "neg", PHONE: "pos", EMOJI: "pos"}, {TIE: 1, JOINED: 1}),
        ("collab-jsonl", {SCREEN: "neg", PHONE: "neg, pos"}, {SILENT: 1}),
        ("seq2seq-jsonl", {"Translate: 你好": "Hello"}, {TIE: 2, SILENT: 1}),
        (
            "ner-jsonl",
            {"😀张三去了北京。": NAMES % "人名", "EU rejects German call": '[{"text":"EU","label":"LOC"}]'},
            {SILENT: 2},
        ),
        ("meta-jsonl", {"元数据": "pos", "第二条": "neg"}, {}),
        (
            "relations-jsonl",
            {"👩‍💻 Ada 在 ACME 工作": '{"entities":[{"text":"Ada","label":"PER"},{"text":"ACME","label":"ORG"}],'
                '"relations":[{"head":"Ada","type":"works_for","tail":"ACME"}]}'},
            {SILENT: 1},
        ),
        (
            "intent-jsonl",
            {"订周五去上海的票": '{"cats":"book_ticket","entities":[{"text":"周五","label":"DATE"},'
                '{"text":"上海","label":"CITY"}]}', "你好": '{"cats":"book_ticket","entities":[]}'},
            {SILENT: 1},
        ),
    ],
)  # fmt: skip
def test_doccano(name: str, expected: dict[str, str], dropped: dict[str, int]) -> None:
    found = load(f"doccano/{name}.zip")
    assert found.recognition.format == "doccano"
    assert answers(found) == expected
    assert lost(found) == dropped


def test_doccano_members_and_metadata() -> None:
    found = load("doccano/single-jsonl.zip")
    assert said(found) == {"alice": {"label": "neg"}, "bob": {"label": "neg"}, "陈老师": {"label": "pos"}}
    assert list(said(found, 2)) == ["john.doe"]
    assert found.examples[0].meta | {"annotations": 0} == {
        "id": 1, "comments": ["电池 vs 屏幕"], "src": "app", "label": "neg", "annotations": 0,
    }  # fmt: skip
    tie = next(drop for drop in found.drops if "agree" in drop.reason)
    assert tie.evidence["votes"] == [{"value": "pos", "raters": ["alice"]}, {"value": "neg", "raters": ["bob"]}]
    hidden = load("doccano/meta-jsonl.zip").examples[0].meta
    assert (hidden["prompt"], hidden["answer"]) == ("hidden?", "x"), "metadata, which nobody was asked about"


def test_doccano_confirmed_documents_without_spans_are_examples() -> None:
    found = load("doccano/ner-jsonl-confirmed.zip", format={"doccano": {"confirmed": True}})
    assert answers(found)["no entities here"] == "[]"


def test_fast_text_is_no_prose() -> None:
    with pytest.raises(DataError, match="has a format that is not known"):
        load("doccano/single-fasttext.zip")


FULL = {"写一首诗😀": "改写一", "2+2?": "4", "truth": "x"}


@pytest.mark.parametrize(
    ("name", "format", "truth", "dropped"),
    [
        ("full.json", "label_studio", "truth it is", {SKIPPED: 1, SILENT: 1}),
        ("full.min.json", "label_studio_min", "x", {SILENT: 1}),
        ("full.csv", "label_studio_min", "x", {SILENT: 1}),
        ("full.tsv", "label_studio_min", "x", {SILENT: 1}),
    ],
)
def test_label_studio(name: str, format: str, truth: str, dropped: dict[str, int]) -> None:
    found = load(f"label_studio/{name}")
    assert found.recognition.format == format
    assert answers(found) == FULL | {"truth": truth}, "ground truth is in the JSON only"
    assert lost(found) == dropped
    meta = found.examples[0].meta
    assert (meta["quality"], meta["score"], meta["count"]) == ("good", 3.6667, 1.0)
    assert (meta["task"], meta["label"], meta["response"]) == (["reasoning/common sense", "写作"], "good", "春眠不觉晓")
    assert "issues" not in meta, "a,b: one of two raters"
    assert said(found) == {
        "2": {"quality": "good", "issues": ["factual"], "score": 4, "count": 2, "rewrite": "改写一",
              "task": ["reasoning/common sense"]},
        "3": {"quality": "good", "issues": ["a,b", "factual"], "score": 5, "rewrite": "改写一",
              "task": ["reasoning/common sense", "写作"]},
        "4": {"quality": "bad", "score": 2, "count": 0, "task": ["写作"]},
    }  # fmt: skip


def test_label_studio_other_projects() -> None:
    assert answers(load("label_studio/ner.json")) == {"😀张三去了北京。": NAMES % "PER", "nothing here": "[]"}
    assert answers(load("label_studio/pair2.json")) == {"写诗": "乙"}
    for name in ("dialog.min.json", "dialog.csv"):  # the conversation is the task's data, not the format of the rows
        found = load(f"label_studio/{name}")
        assert answers(found) == {"你好": "您好"}
        assert (found.recognition.format, found.examples[0].meta["label"]) == ("label_studio_min", "yes")
    assert answers(load("label_studio/senti.tsv")) == {
        "很好": "Positive", "很差": "Negative", 'line\nbreak "q", comma': "Positive", "tab\there": "Negative",
    }  # fmt: skip


def test_argilla() -> None:
    found = load("argilla/full.flat.jsonl")
    assert found.recognition.format == "argilla"
    assert answers(found) == {"写一首诗😀": "改写", "2+2?": "4", "line\nbreak": "r5"}
    assert lost(found) == {SKIPPED: 1, SILENT: 2}, "discarded; a draft, and nothing at all"
    assert said(found) == {
        ALICE: {"quality": "good", "issues": ["事实"], "score": 4, "correction": "改写", "rank": ["B", "A", "C"]},
        BOB: {"quality": "good", "issues": ["事实", "style"], "score": 5, "correction": "改写"},
        CHEN: {"quality": "bad"},
    }  # fmt: skip
    assert set(found.examples[1].meta) == {
        "id", "status", "site", "n", "response", "quality", "score", "label", "annotations",
    }  # fmt: skip
    nested = load("argilla/full.json")
    assert answers(nested) == answers(found) | {"discarded": "half", "draft": "DRAFT"}
    assert (
        nested.notes["pending records were read too: their responses may be drafts, which the JSON does not say"] == 2
    )


def test_argilla_other_datasets() -> None:
    spans = load("argilla/ner.flat.jsonl")
    assert answers(spans) == {"😀张三去了北京。": NAMES % "PER", "nothing": "[]"}, "an empty list was sent"
    assert lost(spans) == {SILENT: 1}
    beside = load("argilla/ner2.flat.jsonl")
    assert answers(beside) == {"Ada came": '[{"text":"Ada","label":"PER"}]', "nothing": "[]"}
    assert [row.meta["label"] for row in beside.examples] == ["pos", "neg"]
    for name in ("chat.flat.jsonl", "chat.flat.parquet"):
        assert answers(load(f"argilla/{name}")) == {"你好": "您好", "hi": "hello"}
    assert answers(load("argilla/senti.saved")) == {"很好": "pos", "很差": "neg"}
    table = load("argilla/senti.flat.csv")
    assert (
        not table.examples
        and lost(table)["Argilla's CSV prints lists as text that cannot be read: export with to_json()"] == 3
    )
