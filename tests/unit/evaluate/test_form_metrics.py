"""Metrics of what an answer contains and how it is formed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.evaluate.metrics import METRICS, Observation
from tuneloop.evaluate.metrics.bits_per_byte import BitsPerByte
from tuneloop.evaluate.metrics.contains import Contains
from tuneloop.evaluate.metrics.json_valid import JsonValid
from tuneloop.evaluate.metrics.length import Length
from tuneloop.evaluate.metrics.refusal_rate import RefusalRate
from tuneloop.evaluate.metrics.regex import Regex
from tuneloop.evaluate.metrics.repetition import Repetition
from tuneloop.evaluate.metrics.tool_calls import ToolCalls
from tuneloop.evaluate.scoring import estimate, how
from tuneloop.texts import patterns


@pytest.mark.parametrize(
    ("text", "options", "meta", "expected"),
    [
        ("The capital is PARIS.", {}, {}, 1),
        ("The capital is Rome.", {}, {}, 0),
        ("PARIS", {"ignore_case": False}, {}, 0),
        ("北京是首都", {"texts": ["北京", "首都"]}, {}, 1),
        ("北京是首都", {"texts": ["上海", "首都"]}, {}, 0),
        ("北京是首都", {"texts": ["上海", "首都"], "require": "any"}, {}, 1),
        ("价格１２元", {"texts": ["12元"]}, {}, 1),
        ("cats and dogs", {"column": "must"}, {"must": ["cats", "dogs"]}, 1),
        ("cats", {"column": "must"}, {"must": "dogs"}, 0),
        ("to\n be", {"texts": ["to be"]}, {}, 1),
    ],
)
def test_contains(text: str, options: dict[str, Any], meta: dict[str, Any], expected: int) -> None:
    assert Contains.model_validate(options).score(Observation("paris", text=text, meta=meta)).value == expected


def test_contains_without_anything_to_look_for_is_unscored() -> None:
    assert "no text to look for" in (Contains().score(Observation(None, text="x")).why or "")
    assert Contains(texts=("x",)).score(Observation(None, text="x")).value == 1
    with pytest.raises(ValidationError, match="none of them empty"):
        Contains(texts=(" ",))


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("call 555-1234", {"pattern": r"\d{3}-\d{4}"}, 1),
        ("call 555-1234", {"pattern": r"\d{3}-\d{4}", "whole": True}, 0),
        (" 555-1234\n", {"pattern": r"\d{3}-\d{4}", "whole": True}, 1),
        ("电话：010", {"pattern": "电话[:：]"}, 1),
        ("YES", {"pattern": "^yes$"}, 0),
        ("YES", {"pattern": "^yes$", "ignore_case": True}, 1),
    ],
)
def test_regex(text: str, options: dict[str, Any], expected: int) -> None:
    assert Regex.model_validate(options).score(Observation(None, text=text)).value == expected


def test_patterns_of_rows_and_wrong_ones() -> None:
    assert Regex().score(Observation(None, text="ab", meta={"pattern": "b$"})).value == 1
    assert "no pattern" in (Regex().score(Observation(None, text="ab")).why or "")
    assert "not a regular expression" in (Regex().score(Observation(None, text="a", meta={"pattern": "("})).why or "")
    with pytest.raises(ValidationError, match="not a regular expression"):
        Regex(pattern="(")


def test_a_catastrophic_pattern_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PATIENCE", 0.05)
    rows = [Observation(None, text="a" * 40 + "!") for _ in range(1000)]
    scores = Regex(pattern="^(?:a|a|aa)+$").score_all(rows, lambda count: None)
    assert all(score.value is None and "stand inside one another" in (score.why or "") for score in scores)


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z张]"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "patternProperties": {"^x_": {"type": "number"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ann", "age": 3}', 1),
        ('```json\n{"name": "张三"}\n```', 1),
        ('Here it is:\n```\n{"name": "Ann"}\n```\nDone.', 1),
        ('{"name": "Ann", "x_y": 1.5}', 1),
        ('{"name": "Ann", "x_y": "1"}', 0),
        ('{"name": "ann"}', 0),
        ('{"age": 3}', 0),
        ('{"name": "Ann", "other": 1}', 0),
        ('{"name": "Ann", "age": NaN}', 0),
        ("{'name': 'Ann'}", 0),
        ('{"name": "Ann"} {"name": "Bob"}', 0),
        ("[" * 5000, 0),
        ("", 0),
    ],
)
def test_json_valid(text: str, expected: int) -> None:
    assert JsonValid(json_schema=SCHEMA).score(Observation(None, text=text)).value == expected
    row = Observation(None, text=text, meta={"schema": json.dumps(SCHEMA)})
    assert JsonValid().score(row).value == expected


def test_json_without_a_schema_or_a_fence() -> None:
    assert JsonValid().score(Observation(None, text="[1, 2]")).value == 1
    assert JsonValid(fenced=False).score(Observation(None, text="```json\n1\n```")).value == 0
    rows = [Observation(None, text=text) for text in ('{"name": "A"}', "{}", "x", "x", "")]
    metric = JsonValid(json_schema=SCHEMA)
    details = metric.details(rows, metric.score_all(rows, lambda count: None))
    assert details == {"kind": "counts", "counts": {"no JSON": 2, "right": 1, "required at /": 1, "empty": 1}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "no JSON"),
        ({"type": "strange"}, "none at type"),
        ({"$ref": "https://example.com/schema.json"}, "outside itself"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"pattern": "("}, "none at pattern"),
        ({"pattern": "^(?:a|a|aa)+$"}, "stand inside one another"),
        ({"patternProperties": {}, "unevaluatedProperties": False}, "not supported"),
        (3, "no JSON object"),
    ],
)
def test_schemas_that_cannot_be_used(schema: object, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "PATIENCE", 0.05)
    found = JsonValid().score(Observation(None, text=json.dumps("a" * 40 + "!"), meta={"schema": schema}))
    assert found.value is None and why in (found.why or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one two three", 3), ("北京是首都。", 5), ("用 Python 写", 3), ("", 0), ("日本のカメラ", 6)],
)
def test_length(text: str, expected: int) -> None:
    assert Length().score(Observation(None, text=text)).value == expected
    assert Length(relative=True).score(Observation("四个汉字", text=text)).value == expected / 4
    assert Length(relative=True).score(Observation("?!", text=text)).why is not None


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b c d", 2, 0.0),
        ("a b a b", 2, 1 / 3),
        ("好好好好好", 2, 3 / 4),
        ("你好你好", 2, 1 / 3),
        ("short", 4, 0.0),
        ("A a. A", 1, 2 / 3),
    ],
)
def test_repetition(text: str, n: int, expected: float) -> None:
    assert Repetition(n=n).score(Observation(None, text=text)).value == pytest.approx(expected)


def test_repetition_of_nothing_is_unscored() -> None:
    assert Repetition().score(Observation(None, text="…")).why == "the answer has no word or character"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help with that.", 1),
        ("As an AI language model, I cannot give medical advice.", 1),
        ("很抱歉，我无法提供该信息。", 1),
        ("作为一个人工智能语言模型，我不能提供法律建议。", 1),
        ("Sorry to hear that! Try restarting the router.", 0),
        ("The guard said: I'm sorry, I can't let you in.", 0),
        ("Paris", 0),
        ("他说：“抱歉，我无法参加。”", 0),
        ("北京是首都", 0),
    ],
)
def test_refusal_rate(text: str, expected: int) -> None:
    assert RefusalRate().score(Observation(None, text=text)).value == expected
    assert RefusalRate().score(Observation(None, text=" ")).value is None


def test_bits_per_byte() -> None:
    rows = [Observation("abc", nll=3 * math.log(2), tokens=2.0), Observation("北京", nll=12 * math.log(2), tokens=2.0)]
    scores = BitsPerByte().score_all(rows, lambda count: None)
    assert [score.value for score in scores] == [pytest.approx(1.0), pytest.approx(2.0)]
    assert estimate(how(BitsPerByte()), scores, 0.95)["value"] == pytest.approx(15 / 9)  # all bytes count alike
    turns = (Message("user", "?"), Message("assistant", "abc"), Message("user", "?"))
    row = Observation("abc", nll=6 * math.log(2), tokens=4.0, prompt=turns, expected=Message("assistant", "abc"))
    assert BitsPerByte().score(row).value == pytest.approx(1.0)  # every supervised turn has its bytes
    half = Observation("abc", nll=1.0, tokens=1.0, expected=Message("assistant", "abc", train=0.5))
    assert "in part" in (BitsPerByte().score(half).why or "")
    for nll in (float("nan"), float("inf"), None):
        assert BitsPerByte().score(Observation("abc", nll=nll, tokens=1.0)).value is None
    assert BitsPerByte().score(Observation("", nll=1.0, tokens=1.0)).value is None


EXPECTED = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "北京", "days": 3}),))


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ('<tool_call>{"name": "weather", "arguments": {"days": 3.0, "city": "北京"}}</tool_call>', {}, 1),
        ('{"name": "weather", "parameters": {"city": "北京", "days": 3}}', {}, 1),
        ('{"name": "weather", "parameters": {"city": "北京", "days": "3"}}', {}, 0),
        ('{"name": "weather", "parameters": {"city": "上海", "days": 3}}', {}, 0),
        ('{"name": "weather", "parameters": {"city": "上海", "days": 3}}', {"arguments": False}, 1),
        ('{"name": "time", "parameters": {"city": "北京", "days": 3}}', {"arguments": False}, 0),
        ("I would call weather.", {}, 0),
        ("", {}, 0),
        ("<tool_call>{broken</tool_call>", {}, 0),
    ],
)
def test_tool_calls(text: str, options: dict[str, Any], expected: int) -> None:
    assert ToolCalls.model_validate(options).score(Observation(None, text=text, expected=EXPECTED)).value == expected


def test_calls_given_apart_several_calls_and_restraint() -> None:
    assert ToolCalls().score(Observation(None, text="", calls=EXPECTED.tool_calls, expected=EXPECTED)).value == 1
    two = Message("assistant", "", tool_calls=(ToolCall("a", {}), ToolCall("b", {"x": 1})))
    turned = Observation(
        None, text='[{"name": "b", "arguments": {"x": 1}}, {"name": "a", "arguments": null}]', expected=two
    )
    assert [ToolCalls(ordered=ordered).score(turned).value for ordered in (False, True)] == [1, 0]
    talk = Observation("hello", text="hello", expected=Message("assistant", "hello"))
    assert ToolCalls().score(talk).why == "no tool call is expected"
    assert ToolCalls(restraint=True).score(talk).value == 1
    rows = [turned, talk, Observation(None, text="no", expected=two)]
    details = ToolCalls(restraint=True).details(rows, [])
    assert details == {"kind": "counts", "counts": {"right": 2, "no call": 1}}


def test_every_metric_takes_nothing_for_nothing() -> None:
    """An empty list of observations has scores and details, too."""
    for name in METRICS.names():
        metric = METRICS.make(name)
        assert metric.score_all([], lambda count: None) == [] and metric.details([], []) is None
