"""What the step `contamination` finds in common with evaluation files, in Chinese as in English."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.data.overlap import Index, Item
from tuneloop.data.steps import STEPS, Rejection

ENGLISH = (
    "A train leaves the old harbour station at nine and reaches the mountain village two hours and ten minutes later."
)
CHINESE = "一列火车九点从旧港口车站出发，两小时十分钟后到达山里的村庄，途中停靠三站。"


def row(prompt: str, answer: str = "ok") -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", 0))


@pytest.fixture
def found(write: Callable[..., str]) -> Callable[..., Any]:
    """found(evaluation rows, training row, **options): the evidence, or None."""
    numbers = iter(range(99))

    def finder(rows: list[dict[str, Any]], example: Example, **options: Any) -> Any:
        path = write(f"exam{next(numbers)}.jsonl", rows)  # an index is made once a process for each file
        result = STEPS.make({"contamination": {"against": [path], **options}}).look(example)
        return {**result.evidence, "path": path} if isinstance(result, Rejection) else None

    return finder


def asked(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": "yes"} for prompt in prompts]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_a_question_inside_a_longer_text(found: Callable[..., Any], text: str) -> None:
    evidence = found(asked("Something else altogether, is it not?", text), row(f"Before. {text} After."))
    assert evidence["file"] == evidence["path"] and evidence["row"] == 1 and evidence["message"] == 0
    assert evidence["span"].replace(" ", "") in text.casefold().translate(str.maketrans("", "", " .,，。"))
    assert found(asked(text), row("What is this?", f"It goes: {text}"))["message"] == 1


def test_thirteen_characters_are_enough_where_there_are_no_words(found: Callable[..., Any]) -> None:
    piece = "九点从旧港口车站出发两小时"
    assert len(piece) == 13
    assert found(asked(CHINESE), row(f"据说{piece}云云"))["span"] == piece
    assert found(asked(CHINESE), row(f"据说{piece[:-1]}云云")) is None
    assert found(asked(CHINESE), row(f"据说{piece}云云"), characters=14) is None


def test_thirteen_words(found: Callable[..., Any]) -> None:
    words = ENGLISH.rstrip(".").split()
    assert found(asked(ENGLISH), row(" ".join(["so", *words[2:15], "it"])))["span"] == " ".join(words[2:15])
    assert found(asked(ENGLISH), row(" ".join(["so", *words[2:14], "it"]))) is None
    assert found(asked(ENGLISH), row(" ".join(["so", *words[2:14], "it"])), words=8) is not None
    assert found(asked(CHINESE), row(CHINESE), words=8, characters=20) is not None


def test_case_width_punctuation_and_spaces_do_not_matter(found: Callable[..., Any]) -> None:
    assert found(asked(ENGLISH), row(ENGLISH.upper().replace(" ", "\n\u3000").replace(".", "！")))
    assert found(asked(CHINESE), row(CHINESE.replace("，", ", ").replace("九点", "九 点")))


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What is the capital of France?", "Tell me: what is the capital of France, please?"),
        ("法国的首都是哪一座城市？", "请问，法国的首都是哪一座城市"),
    ],
)
def test_a_short_question_counts_as_a_whole(found: Callable[..., Any], question: str, text: str) -> None:
    assert found(asked(question), row(text)) is not None
    assert found(asked(question), row(text.replace("France", "Spain").replace("法国", "德国"))) is None


@pytest.mark.parametrize("question", ["too slow", "你好吗"])
def test_a_tiny_question_counts_only_alone(found: Callable[..., Any], question: str) -> None:
    assert found(asked(question), row(f"{question}!")) is not None
    assert found(asked(question), row(f"this film is {question} 真的 for me")) is None


def test_short_answers_prove_nothing(found: Callable[..., Any]) -> None:
    rows = [{"prompt": ENGLISH, "response": "it takes two hours and ten minutes"}]
    assert found(rows, row("How long?", "I think it takes two hours and ten minutes.")) is None


def test_long_answers_do(found: Callable[..., Any]) -> None:
    assert found([{"prompt": "How long does it take?", "response": CHINESE}], row("q", CHINESE)) is not None


def test_a_template_of_the_evaluation_proves_nothing(found: Callable[..., Any]) -> None:
    template = "Is this movie review positive or negative? Answer with one word only, please. Review: "
    films = ["a warm and witty film about two brothers who never learned to say what they mean to each other"]
    films += [f"film number {number}, which is dull" for number in range(8)]
    exam = asked(*(template + film for film in films))
    assert found(exam, row(f"{template}the acting is what carries this one")) is None
    assert found(exam, row(f"{template}{films[0]}")) is not None
    assert found(asked(*(f"请判断下面这条电影评论的情感是正面还是负面：第{number}部影片" for number in "一二三四五六")),
                 row("请判断下面这条电影评论的情感是正面还是负面：演员很出色")) is None  # fmt: skip


def test_several_files_and_formats(write: Callable[..., str]) -> None:
    alpaca = write("a.json", [{"instruction": CHINESE, "input": "", "output": "是"}])
    odd = write("b.csv", f"nr,statement_text\n1,{ENGLISH}\n2,nothing\n")
    step = STEPS.make({"contamination": {"against": [alpaca, odd]}})
    for text, file, number in ((CHINESE, alpaca, 0), (ENGLISH, odd, 0)):
        rejection = step.look(row(text))
        assert isinstance(rejection, Rejection)
        assert rejection.reason == "it has text in common with an evaluation file"
        assert (rejection.evidence["file"], rejection.evidence["row"]) == (file, number)
    clean = row("Nothing of that.")
    assert step.look(clean) is clean


def test_the_system_prompt_is_not_compared(found: Callable[..., Any]) -> None:
    example = Example((Message("system", ENGLISH), *row("q").messages), Origin("s", 0))
    assert found(asked(ENGLISH), example) is None


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        STEPS.make({"contamination": {"against": []}})
    with pytest.raises(DataError, match="no such file"):
        STEPS.make({"contamination": {"against": [str(tmp_path / "gone.jsonl")]}}).look(row("q"))


@given(
    st.text(alphabet="ab 中文字é，.", max_size=80), st.text(alphabet="ab 中文字é，.", max_size=80), st.integers(5, 9)
)
def test_exactly_the_runs_that_both_have(one: str, other: str, size: int) -> None:
    from tuneloop.data.overlap import _tokens

    def runs(text: str) -> set[tuple[str, ...]]:
        tokens = _tokens(text)
        return {tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)}

    found = Index([Item("f", 0, one, asked=False)], size, size).find(other, asked=True)
    assert (found is not None) == bool(runs(one) & runs(other))


@given(st.lists(st.text(alphabet="ab 中文é，.", max_size=60), max_size=5), st.text(max_size=60))
def test_any_texts(items: list[str], text: str) -> None:
    index = Index([Item("f", number, item, asked=True) for number, item in enumerate(items)], 5, 8)
    index.find(text, asked=True)
    for number, item in enumerate(items):
        found = index.find(item, asked=True)
        assert found is None or found.row <= number


def test_every_row_of_real_files_finds_itself(shared: Path, write: Callable[..., str]) -> None:
    for name in ("alpaca_en", "alpaca_zh"):
        rows = json.loads((shared / f"alpaca/{name}.json").read_text("utf-8"))
        step = STEPS.make({"contamination": {"against": [write(f"{name}.json", rows[:100])]}})
        examples = [row(f"{one['instruction']}\n{one['input']}".strip(), one["output"]) for one in rows[:300]]
        hits = [isinstance(step.look(example), Rejection) for example in examples]
        assert all(hits[:100])
        assert sum(hits[100:]) <= 1
