"""What answers repeat of training answers: hand-made texts in Chinese and English."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.evaluate.contestant import Answer
from tuneloop.evaluate.memorisation import CHARACTERS, WORDS, Text, in_words, memorisation_report


def row(asked: str, answer: str, number: int = 0) -> Example:
    return Example((Message("user", asked), Message("assistant", answer)), Origin("train.csv", number))


def report(examples: list[Example], answers: list[str | None], trained: list[Example]) -> dict[str, Any]:
    given = [Answer(None, why="none") if text is None else Answer(text, True) for text in answers]
    return memorisation_report(examples, {"tuned": given}, trained, 0.95)


NOBODYS = "An answer of more than eight words that is nobody's at all."
LEARNT = "Please restart the router, wait for two minutes, and then call our hotline at any time."
GELERNT = "请您先重启路由器并耐心等待两分钟，然后再拨打我们的服务热线。"


def test_a_piece_is_found_with_its_place_whatever_case_and_punctuation() -> None:
    said = "Hello! PLEASE restart the router; wait for two minutes and then do something else entirely, my friend."
    found = report([row("q", NOBODYS)], [said], [row("x", LEARNT, 3)])
    (piece,) = found["longest"]["tuned"]
    assert piece["text"] == "PLEASE restart the router; wait for two minutes and then"
    assert (piece["tokens"], piece["source"]) == (10, "train.csv, row 3")
    assert piece["share"] == pytest.approx(10 / 17) == found["shares"]["tuned"]["value"]
    assert found["shares"]["reference"]["value"] == 0 and found["excess"]["tuned"]["value"] == pytest.approx(10 / 17)


def test_chinese_counts_by_character() -> None:
    learnt = row("问", GELERNT, 5)
    example = row("另一个问题", "这是一个足够长的参考答案，它和训练的答案没有任何关系。")
    inside = "好的，请您先重启路由器并耐心等一下，谢谢。"  # twelve characters of it
    assert report([example], [inside], [learnt])["shares"]["tuned"]["value"] == 0
    said = "好的，请您先重启路由器并耐心等待两分钟。谢谢"
    found = report([example], [said], [learnt])
    (piece,) = found["longest"]["tuned"]
    assert (piece["text"], piece["tokens"]) == ("请您先重启路由器并耐心等待两分钟", 16)
    assert found["shares"]["tuned"]["value"] == pytest.approx(16 / 20)


def test_seven_words_are_nothing_and_eight_are_something() -> None:
    example = row("q", "One two three four five six seven eight nine ten.")
    learnt = [row("x", "alpha beta gamma delta epsilon zeta eta theta iota")]
    seven = "alpha beta gamma delta epsilon zeta eta and more words here"
    assert report([example], [seven], learnt)["shares"]["tuned"]["value"] == 0
    eight = "alpha beta gamma delta epsilon zeta eta theta more words here"
    assert report([example], [eight], learnt)["longest"]["tuned"][0]["tokens"] == WORDS == 8


def test_what_the_prompt_says_is_quoted() -> None:
    example = row(f"Repeat: {LEARNT}", NOBODYS)
    assert report([example], [LEARNT], [row("x", LEARNT)])["shares"]["tuned"]["value"] == 0


def test_references_are_the_baseline() -> None:
    """A set whose answers all end alike: the model that says what the references say has memorised nothing."""
    trained = [row(f"q{i}", f"The value is {i}. {LEARNT}", i) for i in range(30)]
    examples = [row(f"p{i}", f"The value is {i + 50}. {LEARNT}") for i in range(20)]
    same = report(examples, [example.answer.content for example in examples], trained)
    assert same["shares"]["tuned"]["value"] > 0.7 and same["excess"]["tuned"]["value"] == 0
    other = [row(f"p{i}", f"Something else is said of {i} here, and nothing of it is known.") for i in range(20)]
    more = report(other, [trained[0].answer.content] * 20, trained)
    assert more["excess"]["tuned"]["low"] > 0.5 and more["excess"]["tuned"]["p"] < 0.01
    (line,) = in_words(more)
    assert in_words(same) == [] and "answers of tuned repeat 100 % of their words" in line and "references 0 %" in line
    assert more["shares"]["tuned"]["value"] == 1 and more["training_rows"] == 30


def test_short_or_missing_answers_are_left_out_and_counted() -> None:
    found = report([row("q", "yes"), row("q", "no")], ["positive", None], [row("x", LEARNT)])
    assert found["shares"]["tuned"] == {"value": None, "n": 0, "low": None, "high": None}
    assert found["excess"]["tuned"]["value"] is None and found["longest"]["tuned"] == []


def test_prompts_of_training_rows_do_not_count_as_answers() -> None:
    example = row("q", NOBODYS)
    assert report([example], [LEARNT], [row(LEARNT, "ok")])["shares"]["tuned"]["value"] == 0


def test_the_script_of_a_text_is_that_of_most_tokens() -> None:
    assert Text.of("请用 Python 写一个函数").n == CHARACTERS and Text.of("Write 函数 in Python please").n == WORDS
    assert Text.of("").tokens == ()
