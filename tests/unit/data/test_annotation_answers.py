"""Which part of an annotated item becomes the prompt, the answer and the label."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.data.annotation_exports import POEM, REVIEW, annotation, read, reason, result, task, votes
from tuneloop.data.formats import FORMATS, RowError


def test_the_only_choice_is_the_answer_where_the_data_has_none() -> None:
    found = read("label_studio", [task(1, REVIEW, *votes("negative"))], instruction="好评还是差评？")
    assert found.turns == [[("user", "好评还是差评？\n屏幕很亮，电池不行。"), ("assistant", "negative")]]
    assert found.rows[0].meta["label"] == "negative"


def test_a_choice_beside_an_answer_is_its_label() -> None:
    found = read("label_studio", [task(1, POEM, *votes("good"))])
    assert found.answers == ["春眠不觉晓"]
    assert found.rows[0].meta["label"] == found.rows[0].meta["quality"] == "good"


def test_a_rewrite_wins_where_there_is_one_and_a_comment_never_does() -> None:
    rewritten = annotation(1, [result("rewrite", ["改写"])])
    kept = annotation(1, [result("quality", ["good"])])
    assert read("label_studio", [task(1, POEM, rewritten), task(2, POEM, kept)]).answers == ["改写", "春眠不觉晓"]
    remark = {**result("rewrite", ["too short"]), "from_name": "userComment"}
    found = read("label_studio", [task(1, POEM, annotation(1, [remark, result("quality", ["bad"])]))])
    assert found.answers == ["春眠不觉晓"]
    assert found.rows[0].meta["userComment"] == "too short"


def test_two_written_answers_ask_and_an_option_names_one() -> None:
    first, second = ({**result("rewrite", [text]), "from_name": f"t{text}"} for text in "12")
    record = [task(1, POEM, annotation(1, [first, second]))]
    assert "'t1' and 't2' could each be the answer" in reason(read("label_studio", record))
    assert read("label_studio", record, response="t2").answers == ["2"]
    assert read("label_studio", record, response=["nothing", "response"]).answers == ["春眠不觉晓"]
    assert "no answer: the row has no 'nothing'" in reason(read("label_studio", record, response="nothing"))


def test_a_question_and_a_field_of_the_same_name() -> None:
    written = {**result("rewrite", ["neu"]), "from_name": "response"}
    records = [task(1, POEM, annotation(1, [written])), task(2, POEM, annotation(1, [result("quality", ["good"])]))]
    assert read("label_studio", records).answers == ["neu", "春眠不觉晓"]
    named = {**result("quality", ["good"]), "from_name": "source"}
    meta = read("label_studio", [task(1, {**POEM, "source": "wiki"}, annotation(1, [named]))]).rows[0].meta
    assert (meta["source"], meta["_data_source"]) == ("good", "wiki")


def test_the_better_of_a_pair_is_the_answer() -> None:
    data = {"prompt": "q", "a": "short", "b": "long"}
    right = result("better", "right", to="a,b")
    found = read("label_studio", [task(1, data, annotation(1, [right]))])
    assert found.answers == ["long"]
    assert (found.rows[0].meta["a"], found.rows[0].meta["better"]) == ("short", "right")
    renamed = read("label_studio", [task(1, data, annotation(1, [result("better", "option A", to="a,b")]))])
    assert "does not say which field" in reason(renamed)


def test_spans_are_an_answer_in_order_of_position() -> None:
    spans = [
        result("ner", {"start": 15, "end": 18, "text": "BER", "labels": ["LOC"]}),
        result("ner", {"start": 0, "end": 3, "text": "Bob", "labels": ["PER", "HERO"]}),
    ]
    found = read("label_studio", [task(1, {"text": "Bob flew to 🛫 BER"}, annotation(1, spans))])
    texts = [("Bob", "PER"), ("Bob", "HERO"), ("BER", "LOC")]
    assert json.loads(found.answers[0]) == [{"text": text, "label": label} for text, label in texts]
    assert found.annotations[0][0]["values"]["ner"][0] == {"start": 0, "end": 3, "text": "Bob", "label": "PER"}


def test_spans_of_html_and_dialogues_are_placed_by_node_and_turn() -> None:
    html = {"start": "/p[2]/text()[1]", "startOffset": 9, "end": "/p[2]/text()[1]", "endOffset": 12, "text": "two"}
    one = {**html, "start": "/p[1]/text()[1]", "end": "/p[1]/text()[1]", "text": "one", "hypertextlabels": ["A"]}
    results = [{**result("ner", {**html, "hypertextlabels": ["A"]})}, {**result("ner", one)}]
    found = read("label_studio", [task(1, REVIEW, annotation(1, results))])
    assert [span["text"] for span in json.loads(found.answers[0])] == ["one", "two"]
    known = {**html, "globalOffsets": {"start": 40, "end": 43}, "paragraphlabels": ["A"]}
    found = read("label_studio", [task(1, REVIEW, annotation(1, [result("ner", known)]))])
    assert found.annotations[0][0]["values"]["ner"][0]["start"] == 40


def test_a_span_without_its_text_is_cut_as_browsers_count() -> None:
    value = {"start": 3, "end": 6, "labels": ["PER"]}
    found = read("label_studio", [task(1, {"text": "🛫 Bob"}, annotation(1, [result("ner", value)]))])
    assert found.answers == ['[{"text":"Bob","label":"PER"}]']
    half = {**value, "start": 1}
    assert "inside a character" in reason(
        read("label_studio", [task(1, {"text": "🛫 Bob"}, annotation(1, [result("ner", half)]))])
    )


def test_choices_of_a_region_are_no_label_of_the_item() -> None:
    region = {**result("quality", ["formal"])}
    region["value"] = {"start": 0, "end": 2, "text": "屏幕", "choices": ["formal"]}
    found = read("label_studio", [task(1, POEM, annotation(1, [region]))])
    assert "label" not in found.rows[0].meta
    assert found.annotations[0][0]["values"]["quality"] == [region["value"]]


def test_a_conversation_as_data_and_a_chat_that_goes_on() -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    found = read("label_studio", [task(1, {"messages": turns}, *votes("good"))])
    assert found.turns == [[("system", "S"), ("user", "q"), ("assistant", "a")]]
    rewritten = annotation(1, [result("rewrite", ["better"])])
    assert read("label_studio", [task(1, {"messages": turns}, rewritten)]).turns[0][1:] == [
        ("user", "q"), ("assistant", "better"),
    ]  # fmt: skip
    chat = [
        {"from_name": "chat", "to_name": "chat", "type": "chatmessage", "value": {"chatmessage": message}}
        for message in ({"role": "user", "content": "more", "createdAt": 1}, {"role": "assistant", "content": "b"})
    ]
    for data, before in (({"messages": turns}, ["S", "q", "a"]), ({"messages": []}, [])):
        found = read("label_studio", [task(1, data, annotation(1, chat))], response="chat")
        assert [text for _, text in found.turns[0]] == [*before, "more", "b"]


def test_a_number_is_an_answer_only_when_there_is_nothing_else() -> None:
    records = [task(n, REVIEW, annotation(1, [result("score", 4)])) for n in (1, 2)]
    assert read("label_studio", records).answers == ["4", "4"]
    records[0]["annotations"].append(annotation(2, [result("score", 5)], 2))
    found = read("label_studio", records)
    assert len(found.rows) == 1 and found.drops[0].evidence["votes"][1] == {"value": 5, "raters": ["2"]}


@pytest.mark.parametrize(
    ("data", "options", "prompt"),
    [
        ({"text": "T", "title": "x"}, {}, "T"),
        ({"文本": "T"}, {}, "T"),
        ({"Question": "Q", "url": "x"}, {}, "Q"),
        ({"body": "only text", "n": 3}, {}, "only text"),
        ({"instruction": "I", "input": "X"}, {}, "I\nX"),
        ({"instruction": "I", "input": ""}, {}, "I"),
        ({"context": "C", "question": "Q"}, {"prompt": ["context", "question"]}, "C\nQ"),
        ({"a": "A", "b": "B"}, {"prompt": "b"}, "B"),
        ({"symptoms": ["fever", 39]}, {"prompt": "symptoms"}, '["fever",39]'),
    ],
)
def test_which_field_is_asked(data: dict[str, Any], options: dict[str, Any], prompt: str) -> None:
    assert read("label_studio", [task(1, data, *votes("x"))], **options).turns[0][0] == ("user", prompt)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({"context": "C", "question": "Q"}, {}, r"context and question: say .* `prompt: \[context, question\]`"),
        ({"prompt": "P", "question": "Q"}, {}, "prompt and question"),
        ({"a": "A", "b": "B"}, {}, "no field looks like the prompt"),
        ({"text": "  "}, {}, r"the prompt is empty \(text\)"),
        ({"text": "T"}, {"prompt": "txt"}, "no field or answered question 'txt'"),
        ({"img": "/data/upload/1/cat.JPG?d=1"}, {}, "address of a file"),
        ({"text": "T", "image": "cat.jpg"}, {}, "the row has image"),
    ],
)
def test_an_unclear_prompt_asks(data: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        FORMATS.make({"label_studio": options}).parse(task(1, data, *votes("x")))


def test_a_question_can_be_the_prompt() -> None:
    asked = annotation(1, [{**result("rewrite", ["Why?"]), "from_name": "their_question"}])
    assert read("label_studio", [task(1, POEM, asked)], prompt="their_question", response="response").turns == [
        [("user", "Why?"), ("assistant", "春眠不觉晓")]
    ]


def test_system_history_and_tools_of_the_data_are_read() -> None:
    data = {**POEM, "system": "S", "history": [["q", "a"]], "tools": [{"name": "f"}], "lang": "zh", "none": None}
    row = read("label_studio", [task(1, data, *votes("good"))]).rows[0]
    assert [message.content for message in row.messages] == ["S", "q", "a", "写一首诗", "春眠不觉晓"]
    assert row.tools == ({"name": "f"},)
    assert row.meta["lang"] == "zh" and not {"system", "history", "tools", "none"} & row.meta.keys()
    patient = {**POEM, "history": "diabetes since 2001"}
    assert read("label_studio", [task(1, patient, *votes("good"))]).rows[0].meta["history"] == "diabetes since 2001"
