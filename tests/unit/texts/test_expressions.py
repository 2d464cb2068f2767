"""Expressions over a row: what they can say, what they must not, and the steps `filter` and `map`."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.data.steps import STEPS, Rejection
from tuneloop.texts import patterns
from tuneloop.texts.expressions import ExpressionError, compile_expression

ROW = Example(
    (
        Message("system", "Be brief."),
        Message("user", "Earlier?"),
        Message("assistant", "Yes.", train=0.0),
        Message("user", "法国的首都是哪里？"),
        Message("assistant", " It is Paris, of course. "),
    ),
    Origin("data/a.jsonl", 7),
    meta={"label": "geo/capital", "score": 4.5, "votes": "12", "odd name": None, "tags": ["a", "b"], "inner": {"x": 1}},
)


def value(text: str) -> Any:
    return compile_expression(text).value(ROW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt", "法国的首都是哪里？"),
        ('prompt.startswith(("法国", "中国"))', True),
        ('prompt.endswith(["。", "！"])', False),
        ("answer.strip()", "It is Paris, of course."),
        ("words(prompt)", 8),
        ("words(answer)", 5),
        ("characters(answer)", 23),
        ("len(messages)", 5),
        ("messages[0].role", "system"),
        ('messages[-1]["content"] == answer', True),
        ("label", "geo/capital"),
        ("language", None),
        ('source.endswith(".jsonl")', True),
        ("row % 2", 1),
        ("meta.score * 2 - 1", 8.0),
        ("number(meta.votes) // 5", 2),
        ('meta["odd name"] is null', True),
        ('meta.get("gone", 3)', 3),
        ('"gone" in meta', False),
        ('"geo" in label and not (label == "geo/river")', True),
        ('label in ["a", "geo/capital"]', True),
        ("1 < 2 <= 2 != 3", True),
        ('"yes" if meta.score >= 4 else "no"', "yes"),
        ('{"geo": 1}[label.split("/")[0]]', 1),
        ('matches(r"(?i)\\bparis\\b", answer)', True),
        ('matches("[\\u4e00-\\u9fff]{3}", prompt)', True),
        ("lower(answer)[1:3]", "it"),
        ('text(meta.score) + "!"', "4.5!"),
        ('label.replace("geo", "地理")', "地理/capital"),
        ('"a" in meta.tags', True),
        ("meta.inner.x", 1),
        ("-row + +1", -6),
        ("true and false or null", None),
        ("[1, (2, 3)]", [1, [2, 3]]),
        ('answer.count("s") + answer.find("P")', 10),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("wrods(answer)", "did you mean 'words'"),
        ("answr", "did you mean 'answer'"),
        ("meta.x.strp()", "did you mean 'strip'"),
        ("words", r"words is a function; write words\(…\)"),
        ("words(answer", "never closed"),
        ("", "not an expression"),
        ('label = "a"', "compare with =="),
        ("len(answer, 1)", "takes 1 argument"),
        ('matches("(", answer)', "not a regular"),
        ('matches("\\bcat", answer)', "backspace"),
        ("answer.__class__", "has nothing inside"),
        ("().__class__.__bases__()", "unknown method"),
        ("answer.format(1)", "unknown method"),
        ('__import__("os")', "unknown function"),
        ('eval("1")', "unknown function"),
        ("lambda: 1", "not allowed"),
        ("[x for x in answer]", "not allowed"),
        ('f"{answer}"', "not allowed"),
        ("(a := 1)", "not allowed"),
        ("2 ** 9", "not allowed"),
        ("1 << 9", "not allowed"),
        ("1j", "not allowed"),
        ('b"x"', "not allowed"),
        ("...", "not allowed"),
        ("*answer", "not an expression"),
        ("{**meta}", "not allowed"),
        ("words(*meta)", "one after the other"),
        ("len(obj=1)", "one after the other"),
        ("answer @ 2", "not allowed"),
        ("~1", "not allowed"),
        ("1" * 3000, "at most"),
        ("(" * 400, "not an expression"),
        ("-" * 1900 + "1", "too deeply"),
        ("await x", "not allowed"),
        ("import os", "not an expression"),
        ("x; y", "not an expression"),
        ("9" * 40, "beyond 64 bits"),
        ("1e999", "inf"),
        (r'"\ud83d"', "half a character"),
    ],
)
def test_what_is_no_expression(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        compile_expression(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("meta.gone", "no 'gone' in this row; there: label"),
        ("meta.scor", "did you mean 'score'"),
        ('meta["gone"]', "no key 'gone'"),
        ("meta.votes > 3", "cannot be compared"),
        ("meta.votes * 2", r"number\(x\) reads a number"),
        ('"a" + 1', r"text\(x\)"),
        ("1 / 0", "division by zero"),
        ('number("x")', "the text 'x' is no number"),
        ('number("nan")', "nan"),
        ('number("-inf")', "inf"),
        ("1e308 * 10", "inf"),
        ('1 < "a"', "a number cannot be compared with a text"),
        ("words(row)", "wants a text"),
        ("language.strip()", "null"),
        ("messages[9]", "out of range"),
        ("meta.score.x", "a number"),
        ('"a" * 99', "a number is wanted"),
        ("9999999999 * 9999999999", "beyond 64 bits"),
        ('answer.replace("", answer * 2)', "a number is wanted"),
        ("answer.replace()", "enough"),
        ("answer.startswith(3)", "startswith"),
        ("len(row)", "len"),
        ("[1] + [2]", "a number is wanted"),
        ('number("' + "9" * 40 + '") + 1 == null or meta.tags.x', "a list"),
        ("{[1]: 2}", "unhashable"),
    ],
)
def test_what_has_no_value(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        value(text)


def test_texts_do_not_grow_without_end() -> None:
    long = Example((Message("user", "q"), Message("assistant", " " * 4000)), Origin("s", 0))
    for text in ('answer.replace(" ", answer)', 'answer.replace("", answer)', "answer" + "+answer" * 280):
        with pytest.raises(ExpressionError, match="more than 1,000,000 characters"):
            compile_expression(text).value(long)
    with pytest.raises(ExpressionError, match=r"text\[:1000\]"):
        huge = Example((Message("user", "q"), Message("assistant", "a" * 1_000_001)), Origin("s", 0))
        compile_expression('matches("b", answer)').value(huge)


def test_a_catastrophic_pattern_stops_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PATIENCE", 0.05)
    long = Example((Message("user", "q"), Message("assistant", "a" * 40 + "!")), Origin("s", 0))
    with pytest.raises(DataError, match="stand inside one another"):
        compile_expression('matches("^(?:a|a|aa)+$", answer)').value(long)


def test_a_pattern_may_be_written_without_r() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value('matches("\\d", meta.votes)') is True


@given(st.text(alphabet="answerpomt .()[]{}\"'=<>+-*/%,:~@!1290_lambdif\\", max_size=60) | st.text(max_size=30))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    with suppress(ExpressionError, DataError):
        value(text)


def test_filter_shows_what_the_row_had() -> None:
    step = STEPS.make({"filter": {"keep": 'words(answer) >= 9 and label != "spam"'}})
    rejection = step.look(ROW)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == 'not words(answer) >= 9 and label != "spam"'
    assert rejection.evidence == {"words(answer)": 5, "label": "geo/capital"}
    assert STEPS.make({"filter": {"keep": "meta.score > 4"}}).look(ROW) is ROW


def test_filter_of_a_row_without_a_value() -> None:
    rejection = STEPS.make({"filter": {"keep": "meta.rating > 4"}}).look(ROW)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "meta.rating > 4: cannot be evaluated" and "no 'rating'" in rejection.evidence["error"]


def test_filter_of_a_document_without_a_question() -> None:
    document = Example((Message("text", "prose of any kind", train=1.0),), Origin("s", 0))
    assert STEPS.make({"filter": {"keep": 'prompt == "" and words(answer) == 4'}}).look(document) is document


def test_map_sets_what_is_named_from_the_row_as_it_was() -> None:
    step = STEPS.make(
        {
            "map": {
                "set": {
                    "answer": "answer.strip()",
                    "prompt": 'prompt + " " + lower(answer.strip())',
                    "meta.label": 'label.split("/")[0]',
                    "meta.words": "words(answer)",
                    "meta.score": "null",
                }
            }
        }
    )
    found = step.look(ROW)
    assert isinstance(found, Example)
    assert found.answer.content == "It is Paris, of course."
    assert found.messages[3].content == "法国的首都是哪里？ it is paris, of course."
    assert found.messages[:3] == ROW.messages[:3]
    assert found.meta["label"] == "geo" and found.meta["words"] == 5 and "score" not in found.meta
    assert ROW.meta["score"] == 4.5 and found.origin == ROW.origin


@pytest.mark.parametrize(
    ("target", "text", "why"),
    [
        ("answer", "row", "a text is wanted"),
        ("meta.x", "meta.gone", "no 'gone'"),
        ("prompt", "language", "a text is wanted"),
    ],
)
def test_map_without_a_value(target: str, text: str, why: str) -> None:
    rejection = STEPS.make({"map": {"set": {target: text}}}).look(ROW)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == f"{target}: {text} cannot be evaluated" and why in rejection.evidence["error"]


def test_map_of_a_question_that_is_not_there() -> None:
    document = Example((Message("text", "prose", train=1.0),), Origin("s", 0))
    rejection = STEPS.make({"map": {"set": {"prompt": "answer"}}}).look(document)
    assert isinstance(rejection, Rejection) and "no question" in rejection.evidence["error"]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"filter": {"keep": "wrods(answer) > 1"}}, "did you mean 'words'"),
        ({"filter": {}}, "Field required"),
        ({"map": {"set": {"label": '"x"'}}}, "did you mean 'meta.label'"),
        ({"map": {"set": {"anser": '"x"'}}}, "did you mean 'answer'"),
        ({"map": {"set": {"meta.": "1"}}}, "cannot be set"),
        ({"map": {"set": {"answer": "answr"}}}, "did you mean 'answer'"),
        ({"map": {"set": {}}}, "at least 1"),
    ],
)
def test_faults_are_found_in_the_recipe(step: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        STEPS.make(step)
