"""`columns:` and `template:`: what a recipe says about the columns is done exactly, or refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneloop.core.errors import DataError, RecipeError
from tuneloop.core.recipe import load, parse_yaml
from tuneloop.data.config import DataConfig, SourceConfig
from tuneloop.data.formats import RowError
from tuneloop.data.layout import WHOLE, Layout, fields, implied_format
from tuneloop.data.read import open_source

Write = Callable[..., str]
PATIENT = [
    {"role": "system", "content": "{% if note is defined and note %}{{ note }}{% endif %}"},
    {"role": "user", "content": "Age: {{age}}, symptoms: {{symptoms|join(', ')}}"},
    {"role": "assistant", "content": "{{ answer }}"},
]


def layout(template: Any, columns: dict[str, str] | None = None) -> Layout:
    config = SourceConfig(path="x", template=template, columns=columns or {})
    return Layout(config.columns, config.template, explicit=False)


def turns(template: Any, record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in layout(template).apply(record)[0]["messages"]]


# -- conversations from structured records -----------------------------------------------------------------------------
def test_a_structured_record_becomes_a_conversation() -> None:
    record = {"age": 61, "symptoms": ["发热", "咳嗽"], "answer": "肺炎", "ward": 3}
    named, others = layout(PATIENT, {"label": "ward"}).apply(record)
    assert named == {
        "label": 3,
        "messages": [
            {"role": "user", "content": "Age: 61, symptoms: 发热, 咳嗽"},
            {"role": "assistant", "content": "肺炎"},
        ],
    }
    assert others == {"age": 61, "symptoms": ["发热", "咳嗽"], "answer": "肺炎"}, "only named columns are interpreted"
    assert turns(PATIENT, {**record, "note": "You are a doctor."})[0] == ("system", "You are a doctor.")


def test_every_used_field_is_listed() -> None:
    assert layout(PATIENT, {"label": "ward"}).used == ("ward", "age", "answer", "note", "symptoms")
    assert layout({}, {"prompt": "q", "response": "a"}).used == ("q", "a")
    assert fields(["{{ row['the kind'] }} {{ row.age }} {% for x in list %}{{ x.y }}{% endfor %}"]) == [
        "age",
        "list",
        "the kind",
    ]
    for text in ("{% for key in row %}{{ key }}{% endfor %}", "{{ row.items() | list | tojson }}", "{{ row[name] }}"):
        assert WHOLE in fields([text])
    assert fields(["{% set a = 1 %}{{ a }} {{ range(3) | join }} {# {{ no }} #}"]) == []


def test_nested_fields_and_weights() -> None:
    template = [
        {"role": "user", "content": "{{ patient.name }}"},
        {"role": "assistant", "content": "draft", "train": 0},
        {"role": "assistant", "content": "{{ patient['age'] }}"},
    ]
    named, _ = layout(template).apply({"patient": {"name": "张三", "age": 61}})
    assert named["messages"] == [
        {"role": "user", "content": "张三"},
        {"role": "assistant", "content": "draft", "train": 0},
        {"role": "assistant", "content": "61"},
    ]
    with pytest.raises(RowError, match=r"message 2 \(assistant\): 'dict object' has no attribute 'age'") as caught:
        layout(template).apply({"patient": {"name": "x"}})
    assert caught.value.evidence == {"error": "UndefinedError", "field": "age"}


def test_a_field_that_a_row_lacks_is_an_error_of_that_row() -> None:
    with pytest.raises(RowError, match=r"template, message 1 \(user\): 'symptoms' is undefined") as caught:
        layout(PATIENT).apply({"age": 61, "answer": "x"})
    assert caught.value.evidence["field"] == "symptoms"


def test_a_field_that_no_row_has_is_an_error_at_once(write: Write) -> None:
    rows = [{"age": 1, "symptom": [], "answer": "x", "note": ""}] * 3
    with pytest.raises(
        DataError, match=r"faq has no column 'symptoms' \(did you mean 'symptom'\?\); its columns: age, s"
    ):
        layout(PATIENT).check(open_source(write("a.jsonl", rows)), "faq")


def test_a_field_that_few_rows_have_is_found(write: Write) -> None:
    rows: list[dict[str, Any]] = [{"age": 1, "symptoms": [], "answer": "x"}] * 999
    raw = open_source(write("a.jsonl", [*rows, {"note": "rare"}]))
    assert not any("note" in record for record in raw.head())
    layout(PATIENT).check(raw, "faq")


@pytest.mark.parametrize(
    ("text", "record", "reason"),
    [
        ("{{ x }}", {"x": None}, "a printed column is null"),
        ("{{ x }}", {"x": ["a"]}, "a printed column is a list; write {{ … | join"),
        ("{{ x }}", {"x": {"a": 1}}, "a printed column is an object"),
        ("{{ x | join(', ') }}", {"x": "fever; cough"}, "join needs a list, found str: 'fever; cough'"),
        ("{{ x | join(', ') }}", {"x": ["a", None]}, "a printed column is null"),
        ("{{ x | join(', ') }}", {"x": {"a": 1}}, "join needs a list, found dict"),
        ("{{ x.__class__.__mro__ }}", {"x": "a"}, "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ 1 / x }}", {"x": 0}, "division by zero"),
        ("{{ x }}", {"x": "  "}, "the text is empty"),
    ],
)
def test_what_would_be_trained_on_by_mistake_is_refused(text: str, record: dict[str, Any], reason: str) -> None:
    template = [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
    with pytest.raises(RowError) as caught:
        layout(template).apply(record)
    assert reason in caught.value.reason


def test_json_in_templates_is_plain() -> None:
    value = {"城市": "北京", "a": "<b> & 'c'", "n": [1, None, 2.5]}
    template = [{"role": "user", "content": "{{ x | tojson }}"}, {"role": "assistant", "content": "{{ x.n | tojson }}"}]
    asked, answered = turns(template, {"x": value})
    assert json.loads(asked[1]) == value
    assert "北京" in asked[1] and "<b> & 'c'" in asked[1]
    assert list(json.loads(asked[1])) == list(value), "the order of the keys stays"
    assert answered[1] == "[1, null, 2.5]"


FIELD = st.text(max_size=20)


@given(FIELD.filter(str.strip), st.lists(FIELD, max_size=4), FIELD)
def test_any_text_reaches_the_messages_as_it_is(question: str, items: list[str], answer: str) -> None:
    template = [
        {"role": "user", "content": "{{ q }}"},
        {"role": "assistant", "content": "{{ items | join('、') }}\n{{ a }}\n"},
    ]
    record = {"q": question, "items": items, "a": answer}
    assert turns(template, record) == [("user", question), ("assistant", f"{'、'.join(items)}\n{answer}\n")]


# -- roles and columns -------------------------------------------------------------------------------------------------
def test_templates_of_roles_still_work() -> None:
    template = {"prompt": "Review: {{ sentence }}", "response": "{{ {'0': 'no', '1': 'yes'}[label] }}"}
    found = layout(template)
    assert found.used == ("label", "sentence")
    named, others = found.apply({"sentence": "good", "label": "1", "prompt": "id7"})
    assert named == {"prompt": "Review: good", "response": "yes"}
    assert others == {"sentence": "good", "label": "1", "column_prompt": "id7"}
    with pytest.raises(RowError, match="template for response: .*has no attribute '7'") as caught:  # noqa: RUF043
        found.apply({"sentence": "good", "label": "7"})
    assert caught.value.evidence == {"error": "UndefinedError", "field": "7"}


def test_which_format_a_recipe_implies() -> None:
    assert implied_format({}, SourceConfig(path="x", template=PATIENT).template) == "messages"
    assert implied_format({}, {"prompt": "{{ q }}"}) == "table"
    assert implied_format({"response": "a"}, {}) == "table"
    assert implied_format({"label": "a"}, {}) is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("template: [{role: user, content: '{{ q }}'}]", "no message of the template is trained on"),
        ("template: [{role: assistant, content: a, train: 0}]", "no message of the template is trained on"),
        ("template: [{role: assistant, content: '{{ a'}]", "the template for 'message 0' is not valid Jinja"),
        ("template: [{role: assistant, content: '{{ a | jion }}'}]", "No filter named 'jion'"),
        ("template: [{role: robot, content: a}]", "template: message 0: role: must be 'system', 'user'"),
        ("template: [{role: user}]", "template: message 0: content: Field required"),
        ("template: [hello]", "template: message 0: must be a valid dictionary"),
        ("template: [{role: assistant, text: a}]", "unknown key 'text'; known: role, content, train"),
        ("template: [{role: assistant, content: a}], format: alpaca", "goes with `format: messages`"),
        ("template: [{role: assistant, content: a}], columns: {messages: m}", "messages: named in columns and in"),
        ("template: {prompt: '{{ q }}'}, columns: {prompt: q}", "prompt: named in columns and in template"),
        ("template: {prompt: '{{ q }'}", "the template for 'prompt' is not valid Jinja"),
    ],
)
def test_templates_that_cannot_work_are_errors_of_the_recipe(source: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(DataConfig, parse_yaml(f"sources: [{{path: x, {source}}}]", "r.yaml"))
    assert message in str(caught.value)


def test_a_template_survives_dumping() -> None:
    config = SourceConfig(path="x", template=PATIENT)
    assert SourceConfig.model_validate(config.model_dump(mode="json")) == config


# -- paths -------------------------------------------------------------------------------------------------------------
def test_paths_with_parts_are_found_beside_the_recipe(tmp_path: Path) -> None:
    for name in ("book.xlsx", "a#b.jsonl"):
        (tmp_path / name).write_text("x")
    (tmp_path / "saved").mkdir()
    context = {"folder": tmp_path}

    def found(path: str) -> str:
        return SourceConfig.model_validate({"path": path}, context=context).path

    assert found("book.xlsx#Sheet2") == f"{tmp_path}/book.xlsx#Sheet2"
    assert found("a#b.jsonl") == f"{tmp_path}/a#b.jsonl"
    assert found("a#b.jsonl#x#y") == f"{tmp_path}/a#b.jsonl#x#y"
    assert found("saved#train") == f"{tmp_path}/saved#train"
    assert found("hf:org/name#train") == "hf:org/name#train"
    assert found("missing.xlsx#S") == "missing.xlsx#S"
    with pytest.raises(ValidationError):
        found(None)  # pyright: ignore[reportArgumentType]
