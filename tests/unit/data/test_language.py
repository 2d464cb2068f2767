"""Which rows the step `language` drops, and which it must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from stepping import run

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.data.steps import STEPS, Rejection
from tuneloop.data.steps.language import Language
from tuneloop.texts.languages import identify

SPANISH = "Explique por qué el cielo es azul con palabras sencillas y claras."
GERMAN = "Erklären Sie bitte, warum der Himmel blau ist, und nennen Sie ein Beispiel."
JAPANESE = "空が青い理由を簡単に説明してください。"
RUSSIAN = "Объясните, почему небо голубое, и приведите примеры."
CHINESE = "请解释为什么天空是蓝色的，并举例说明。"
ENGLISH = "The sky is blue because air scatters short waves more than long ones."
CODE = "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result"


def row(prompt: str, answer: str, **more: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", 0), **more)


def verdict(prompt: str, answer: str, **options: Any) -> Any:
    """None where the row stays, else the evidence."""
    found = Language(**options).look(row(prompt, answer))
    return found.evidence if isinstance(found, Rejection) else None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (SPANISH, "es"),
        (GERMAN, "de"),
        (JAPANESE, "ja"),
        (RUSSIAN, "ru"),
        (CHINESE, "zh"),
        (ENGLISH, "en"),
        ("하늘이 왜 파란지 설명해 주세요.", "ko"),
        ("Γιατί είναι ο ουρανός μπλε;", "el"),
        ("لماذا السماء زرقاء اليوم", "ar"),
        ("為什麼天空是藍色的？", "zh"),
        ("用 Python 3.10 写一个 hello world 程序", "zh"),
        ("空はなぜ青いのか", "ja"),
    ],
)
def test_identified(text: str, language: str) -> None:
    found = identify(text)
    assert max(found.words, key=lambda code: found.words[code]) == language
    assert 0.5 < found.confidence <= 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "B",
        "Yes",
        "Oui",
        "好",
        "D) 3.14",
        "Emmeline Pankhurst",
        "x = 5\ny = x + 1\nprint(y)",
        "$$\\frac{a}{b} = \\sqrt{c}$$",
        '{"name": "wetter", "arguments": {"stadt": "Berlin"}}',
        "https://beispiel.de/eine/lange/adresse",
        "a@b.de",
        "+",
        "😀",
        "SELECT name FROM users;",
        "\ud800",
        "```python\nfür = 'über die Brücke gehen wir'\n```",
    ],
)
def test_no_language(text: str) -> None:
    assert identify(text).words == {}
    assert verdict(CHINESE, text) is None
    assert verdict(ENGLISH, text, keep=["en"]) is None
    assert verdict(text, text) is None


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    found = identify(text, frozenset({"zh", "en"}))
    assert all(count > 0 for count in found.words.values())


@pytest.mark.parametrize("foreign", [SPANISH, GERMAN, JAPANESE, RUSSIAN])
def test_other_languages_leave(foreign: str) -> None:
    evidence = verdict(foreign, foreign)
    assert evidence["share"] == 1 and evidence["confidence"] > 0.5
    assert verdict(foreign, foreign, keep=["zh", "en", evidence["language"]]) is None


def test_the_language_found_is_written_beside_the_labels() -> None:
    found = Language().look(row(CHINESE, CODE, meta={"label": "a"}))
    assert isinstance(found, Example) and found.meta == {"label": "a", "language": "zh"}
    stated = row(CHINESE, CODE, meta={"language": "zh-Hant"})
    assert Language().look(stated) is stated, "what the data states stays"
    unknown = row("42", "B")
    assert Language().look(unknown) is unknown


def test_translations_stay() -> None:
    assert verdict(f"Translate into Spanish: {ENGLISH}", SPANISH) is None
    assert verdict("把这句话翻译成德语：为什么天空是蓝色的？", GERMAN) is None
    assert (
        verdict(f"Translate into English: {SPANISH}", "Explain in simple and clear words why the sky is blue.") is None
    )
    assert (
        verdict("Write one line in French about the sky and the sea", "Le ciel et la mer sont bleus comme tes yeux.")
        is None
    )


def test_an_answer_in_a_language_that_nobody_asked_for_leaves() -> None:
    found = Language().look(row("Why is the sky blue? Give the reasons in short.", SPANISH))
    assert isinstance(found, Rejection)
    assert found.reason == "the answer is not in zh or en" and found.evidence["language"] == "es"
    assert verdict(SPANISH, CHINESE) is not None


def test_one_side_only() -> None:
    assert verdict(SPANISH, ENGLISH, of="answer") is None
    assert verdict(SPANISH, ENGLISH, of="prompt")["language"] == "es"
    assert verdict(ENGLISH, SPANISH, of="answer", keep=["en"])["language"] == "es"


def test_code_in_chinese_rows_is_not_english() -> None:
    assert verdict("写一个求和的函数", CODE, keep=["zh"]) is None
    assert verdict("写一个求和的函数", f"下面是代码：\n```python\n{CODE}\n```\n它把所有数加起来。", keep=["zh"]) is None


def test_the_share_that_is_wanted() -> None:
    mixed = f"{CHINESE} {ENGLISH}"
    assert verdict(mixed, "", keep=["zh"], min_share=0.2) is None
    assert verdict(mixed, "", keep=["zh"], min_share=0.9)["share"] < 0.9


def test_a_document_has_no_prompt() -> None:
    document = Example((Message("text", GERMAN, train=1.0),), Origin("s", 0))
    assert isinstance(Language().look(document), Rejection)


@pytest.mark.parametrize(
    ("code", "hint"), [("chinese", "did you mean 'zh'"), ("xx", "no language 'xx'"), ("zxx", "no language")]
)
def test_codes_that_are_none(code: str, hint: str) -> None:
    with pytest.raises(ValidationError, match=hint):
        Language(keep=[code])


def test_planted_rows(shared: Path) -> None:
    lines = (shared / "planted/planted4k.jsonl").read_text("utf-8").split("\n")
    truth = [json.loads(line) for line in lines if line]
    rows = [
        Example((Message("user", one["instruction"]), Message("assistant", one["output"])), Origin("s", number))
        for number, one in enumerate(truth)
    ]
    kept, gone = run([STEPS.make("repair"), STEPS.make("language")], rows)
    dropped = {example.origin.row for example, _ in gone}
    for language in ("zh", "en"):
        mine = {number for number, one in enumerate(truth) if one["lang"] == language}
        assert len(mine & dropped) <= 2, "two rows hold more Swahili and Hindi than Chinese and English"
    foreign = {number for number, one in enumerate(truth) if one["lang"] not in ("zh", "en")}
    assert foreign <= dropped
    said = {example.origin.row: example.meta.get("language") for example in kept}
    assert sum(truth[number]["lang"] != found for number, found in said.items() if found) < 0.005 * len(said)


def test_real_rows_stay(shared: Path) -> None:
    for name in ("alpaca_en", "alpaca_zh"):
        for one in json.loads((shared / f"alpaca/{name}.json").read_text("utf-8")):
            assert verdict(f"{one['instruction']}\n{one['input']}", one["output"]) is None, one
    for line in (shared / "sst2/train.tsv").read_text("utf-8").split("\n")[1:20_000:7]:
        assert verdict(line.split("\t")[0], "positive") is None, line
