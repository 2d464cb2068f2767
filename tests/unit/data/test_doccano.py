"""doccano's exports: every task type, members of a zip, places of spans, and what the formats do not say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.data.annotation_exports import WORDS, chosen_format, doc, members, read, reason
from tuneloop.data.formats import FORMATS


def test_doccano_classification_by_several_members() -> None:
    records = members(
        alice=[doc(1, "差", label=["neg"], src="a"), doc(2, "好", label=["pos"])],
        bob=[doc(1, "差", label=["neg"], src="a"), doc(2, "好", label=[])],
        **{"john.doe": [doc(1, "差", label=["pos"], src="a"), doc(2, "好", label=["neg"])]},
    )
    assert chosen_format(records) == ("doccano", 1.0)
    found = read("doccano", records)
    assert found.turns == [[("user", "差"), ("assistant", "neg")]]
    assert found.rows[0].meta["label"] == "neg" and found.rows[0].meta["src"] == "a"
    assert [(one["rater"], one["values"]) for one in found.annotations[0]] == [
        ("alice", {"label": "neg"}), ("bob", {"label": "neg"}), ("john.doe", {"label": "pos"}),
    ]  # fmt: skip
    assert found.drops[0].evidence["votes"] == [
        {"value": "pos", "raters": ["alice"]}, {"value": "neg", "raters": ["john.doe"]},
    ]  # fmt: skip
    assert read("doccano", records, trusted=["alice"]).answers == ["neg", "pos"]


def test_doccano_all_names_nobody_unless_it_is_a_member() -> None:
    together = read("doccano", members(all=[doc(1, "t", label=["a"])]))
    assert together.annotations[0][0]["rater"] == ""
    alone = read("doccano", [doc(1, "t", label=["a"])], rater="alice")
    assert alone.annotations[0][0]["rater"] == "alice"
    both = read("doccano", members(all=[doc(1, "t", label=["a"])], bob=[doc(1, "t", label=["a"])]))
    assert [one["rater"] for one in both.annotations[0]] == ["all", "bob"]


def test_doccano_an_empty_list_is_missing_unless_the_export_is_confirmed() -> None:
    records = [doc(1, "Bob", label=[[0, 3, "PER"]]), doc(2, "nobody here", label=[])]
    found = read("doccano", records)
    assert len(found.rows) == 1 and found.drops[0].reason == "not annotated: nobody answered any question"
    assert read("doccano", records, confirmed=True).answers == ['[{"text":"Bob","label":"PER"}]', "[]"]
    labels = [doc(1, "a", label=["x"]), doc(2, "b", label=[])]
    assert len(read("doccano", labels, confirmed=True).drops) == 1, "no label is no class"


def test_doccano_spans_count_as_browsers_do_or_as_python() -> None:
    text = "👨🏻‍🚒 firemen drive firetrucks"
    start = len(text[: text.index("firetrucks")].encode("utf-16-le")) // 2
    found = read("doccano", [doc(1, text, label=[[start, start + 10, "V"], [8, 15, "P"]])])
    assert found.answers == ['[{"text":"firemen","label":"P"},{"text":"firetrucks","label":"V"}]']
    assert found.annotations[0][0]["values"]["label"][0]["text"] == "firetrucks"
    start = text.index("firetrucks")
    imported = [doc(1, text, label=[[start, start + 10, "V"]])]
    assert read("doccano", imported, offsets="characters").answers == ['[{"text":"firetrucks","label":"V"}]']
    assert "outside the text" in reason(read("doccano", [doc(1, "abc", label=[[1, 9, "V"]])]))


def test_doccano_projects_that_count_graphemes() -> None:
    records = [doc(1, "👩‍💻🇨🇳 Ada 在北京", label=[[3, 6, "PER"], [8, 10, "LOC"]])]
    found = read("doccano", records, offsets="graphemes")
    assert found.answers == ['[{"text":"Ada","label":"PER"},{"text":"北京","label":"LOC"}]']
    far = [doc(1, "👩‍💻🇨🇳", label=[[1, 3, "PER"]])]
    assert reason(read("doccano", far, offsets="graphemes")) == "a span lies outside the text"


def test_doccano_intent_and_slots_are_one_answer() -> None:
    records = [doc(1, "飞上海", cats=["book"], entities=[[1, 3, "CITY"]]), doc(2, "hi", cats=["greet"], entities=[])]
    assert chosen_format(records) == ("doccano", 1.0)
    found = read("doccano", records)
    assert found.answers == [
        '{"cats":"book","entities":[{"text":"上海","label":"CITY"}]}', '{"cats":"greet","entities":[]}',
    ]  # fmt: skip
    assert [row.meta["label"] for row in found.rows] == ["book", "greet"]
    assert read("doccano", records, response="cats").answers == ["book", "greet"]
    assert read("doccano", records, response="entities").answers[0] == '[{"text":"上海","label":"CITY"}]'


def test_doccano_relations_name_their_ends() -> None:
    entities = [
        {"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3},
        {"id": 8, "label": "ORG", "start_offset": 12, "end_offset": 15},
    ]
    relations = [{"id": 1, "from_id": 7, "to_id": 8, "type": "works_for"}]
    records = [doc(1, "Bob joined IBM.", entities=entities, relations=relations)]
    records[0]["entities"][1] |= {"start_offset": 11, "end_offset": 14}
    assert chosen_format(records) == ("doccano", 1.0)
    assert json.loads(read("doccano", records).answers[0]) == {
        "entities": [{"text": "Bob", "label": "PER"}, {"text": "IBM", "label": "ORG"}],
        "relations": [{"head": "Bob", "type": "works_for", "tail": "IBM"}],
    }
    lost = [doc(1, "Bob", entities=entities[:1], relations=relations)]
    assert "names an entity that is not in the record" in reason(read("doccano", lost))


def test_doccano_written_texts_are_answers_and_no_labels() -> None:
    records = [doc(n, f"sentence {n}", label=[f"这是第 {n} 句话的译文"]) for n in range(12)]
    found = read("doccano", records)
    assert found.answers[3] == "这是第 3 句话的译文" and "label" not in found.rows[3].meta
    chosen = read("doccano", [doc(n, f"sentence {n}", label=[f"c{n % 2}"]) for n in range(12)])
    assert chosen.rows[3].meta["label"] == "c1"
    assert "label" not in read("doccano", records[:2], task="seq2seq").rows[0].meta
    several = [doc(1, "Hello!", label=["こんにちは！", "やあ"])]
    assert read("doccano", several, task="seq2seq").drops[0].evidence["votes"][0]["value"] == "こんにちは！"
    assert read("doccano", several, task="seq2seq", agree="first").answers == ["こんにちは！"]
    assert read("doccano", several, task="classification").answers == ["こんにちは！, やあ"]


def test_doccano_csv_cannot_tell_joined_labels_apart() -> None:
    rows = [
        {"id": "1", "text": "t", "label": "a", "Comments": ""},
        {"id": "2", "text": "t", "label": "a#b", "Comments": ""},
    ]
    assert chosen_format(rows)[0] == "doccano"
    found = read("doccano", rows)
    assert found.answers == ["a"] and "export JSONL" in found.drops[0].reason
    assert read("doccano", [doc(1, "t", label=["C#"])]).answers == ["C#"], "in JSONL a # is a character"


def test_doccano_comments_are_kept_and_two_projects_in_one_zip_stay_two() -> None:
    commented = {**doc(1, "t", label=["a"]), "Comments": ["unsure"]}
    assert read("doccano", [commented]).rows[0].meta["comments"] == ["unsure"]
    found = read("doccano", members(a=[doc(1, "one", label=["x"])], b=[doc(1, "two", label=["y"])]))
    assert found.answers == ["x", "y"]


@pytest.mark.parametrize("name", ["doccano", "argilla"])
def test_where_there_are_no_times_there_is_no_newest(name: str) -> None:
    with pytest.raises(ValidationError, match="exports no times"):
        FORMATS.make({name: {"agree": "newest"}})


DOCUMENTS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip),
        st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20), WORDS), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(DOCUMENTS, st.sampled_from(["utf-16", "characters", "graphemes"]))
def test_doccano_gives_back_the_spans_of_any_text(documents: list[Any], offsets: str) -> None:
    records, wanted = [], []
    for number, (text, drawn) in enumerate(documents):
        units = regex.findall(r"\X", text) if offsets == "graphemes" else list(text)
        places = range(len(units) + 1)
        if offsets == "utf-16":
            places = [len(text[:index].encode("utf-16-le")) // 2 for index in places]
        spans = [(start, min(start + count, len(units)), label) for start, count, label in drawn if start < len(units)]
        spans = sorted(spans) or [(0, len(units), "whole")]
        records.append(doc(number, text, label=[[places[start], places[end], label] for start, end, label in spans]))
        wanted.append([{"text": "".join(units[start:end]), "label": label} for start, end, label in spans])
    assert [json.loads(answer) for answer in read("doccano", records, offsets=offsets).answers] == wanted
