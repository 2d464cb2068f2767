"""Which answers the step `noise` takes for noise, and which it must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.data.repetition import may_repeat, repetition
from tuneloop.data.steps import Rejection
from tuneloop.data.steps.noise import Noise

PROSE = (
    "The tide turns twice a day because the moon pulls the water on its side of the earth more strongly than the earth "
    "itself, and the earth more strongly than the water on the far side, so that two bulges follow the moon around. "
)
POEM = "\n".join(
    f"{line}\nAnd still the river runs to the sea"
    for line in (
        "The hills are green in early May",
        "My brother went to town to trade",
        "A letter came with nothing in it",
        "We buried what we could not keep",
        "The barn was empty when I woke",
    )
)


def row(answer: str, prompt: str = "Explain it.", **more: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", answer)), Origin("s", 0), **more)


def reason(answer: str, prompt: str = "Explain it.", **options: Any) -> str | None:
    found = Noise(**options).look(row(answer, prompt))
    return found.reason if isinstance(found, Rejection) else None


@pytest.mark.parametrize(
    "answer", ["", " \n", "...", "。", "……", "NaN", "[object Object]", "<nooutput>", "noinput", "暂无", "TODO"]
)
def test_empty(answer: str) -> None:
    assert reason(answer) == "the answer is empty"
    assert reason(answer, empty=False) is None


@pytest.mark.parametrize(
    "answer",
    ["42", "B", "None", "无", "null", "+", "?", "😀", "√", ":)", "Yes.", "好。", "<br>", "N/A", "不", "0.5", "空集"],
)
def test_short_answers_are_answers(answer: str) -> None:
    assert reason(answer) is None


def test_a_call_is_an_answer() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}),))
    given = Example((Message("user", "q"), call), Origin("s", 0))
    assert Noise().look(given) is given


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, I can’t help with this request.",
        "I cannot provide medical advice.",
        "Sorry, I am unable to open links.",
        "Unfortunately, you have not provided the text to summarise.",
        "很抱歉，我无法回答这个问题。",
        "对不起，您没有提供需要总结的文章。",
        "作为一个人工智能，我不能浏览网页。",
    ],
)
def test_refusals(answer: str) -> None:
    assert reason(answer, "Summarise the article.") == "the answer is a refusal"
    assert reason(answer, "Summarise the article.", refusals=False, disclaimers=False) is None
    tools = row(answer, tools=({"name": "f"},))
    assert Noise().look(tools) is tools, "there it says what the tools cannot do"


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that. Try a warm compress and rest for a day.",
        f"I'm sorry, but I can't open the link. {PROSE * 2}",
        "Customer: I'm sorry, I can't hear you.\nAgent: Let me call you back.",
        "很抱歉给您带来不便，退款会在三天内到账。",
        "我无法忘记那个夏天：海风、沙滩和她的笑声。" + "我们走了很远。" * 12,
        "A cat cannot fly.",
        "他说：“对不起，我不能去。”然后挂了电话。",
    ],
)
def test_answers_that_only_sound_like_refusals(answer: str) -> None:
    assert reason(answer, refusals=True, max_repetition=1) is None


@pytest.mark.parametrize(
    "answer",
    [
        f"As an AI language model, I do not have feelings, but I can say this. {PROSE * 2}",
        f"作为一个人工智能语言模型，我没有个人观点。不过可以从以下几方面来看。{'各方意见不一，需要具体分析。' * 8}",
        f"I'm an AI assistant, so I am unable to taste food. {PROSE * 2}",
    ],
)
def test_disclaimers(answer: str) -> None:
    given = {"max_repetition": 1.0}
    assert reason(answer, "What is your favourite dish?", **given) == "the answer begins with a disclaimer"
    assert reason(answer, "What is your favourite dish?", disclaimers=False, **given) is None
    assert reason(answer, "Are you an AI? 你是人工智能吗？", **given) is None, "asked for"
    assert reason(f"{POEM} {answer}", "What is your favourite dish?", **given) is None, "not at the beginning"


def test_who_plays_an_assistant_denies_nothing() -> None:
    assert (
        reason("As an AI assistant, I would read the menu aloud and confirm the order step by step.", "Order!") is None
    )
    assert reason("有人会说“你作为人工智能助手没有帮上忙”，这不公平。", "反方观点是什么？") is None


@pytest.mark.parametrize(
    "answer",
    [
        "We use cookies to improve your experience. Accept all cookies?",
        "Great recipe. Subscribe to our channel for more!",
        "© 2024 Example Inc. All rights reserved.",
        "Click here to read the full story.",
        "404 Not Found",
        "好文章。扫码关注我们的公众号",
        "本文版权所有，未经授权不得转载。",
        "责任编辑：王五",
        "登录后查看全部内容",
    ],
)
def test_boilerplate(answer: str) -> None:
    found = Noise().look(row(answer, "How do I bake bread?"))
    assert isinstance(found, Rejection) and found.reason == "the answer has boilerplate of a web page"
    assert found.evidence["span"] in answer or answer in found.evidence["span"]
    assert reason(answer, boilerplate=False) is None
    assert reason(answer, "Write the footer of a web page, 写一段网页声明") is None


def test_cookies_are_also_baked() -> None:
    assert reason("Bake the cookies for ten minutes, subscribe to patience, and click the oven off.", "How?") is None


@pytest.mark.parametrize(
    "end", ["and the next reason is the", "first of all,", "以下几种方法：", "萨克斯、小号、", "```python\nx = 1"]
)
def test_cut_off(end: str) -> None:
    assert reason(f"{PROSE}{end}") == "the answer is cut off"
    assert reason(f"{PROSE}{end}", cut_off=False) is None
    assert reason(end) is None, "a short answer may end in a comma"


@pytest.mark.parametrize(
    "end", ["", "```python\nx = 1\n```", "x = {1: 2};", "这样做是值得的", "- one\n- two", "(see above)", 'said "the"']
)
def test_whole_answers_end_in_many_ways(end: str) -> None:
    assert reason(f"{PROSE}{end}") is None


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("I am happy to help you with this. " * 12, 0.8),
        (PROSE + "and so on and on " * 60, 0.6),
        ("这个产品非常好，我非常喜欢。" * 10, 0.8),
        ("哈" * 60, 0.8),
        ("a" * 200, 0.9),
        (f"{PROSE}\n\n{PROSE}\n\n{PROSE}", 0.6),
    ],
)
def test_answers_that_repeat_themselves(answer: str, share: float) -> None:
    assert may_repeat(answer)
    found = Noise(cut_off=False).look(row(answer))
    assert isinstance(found, Rejection) and found.reason == "the answer repeats itself"
    assert found.evidence["share"] > share and found.evidence["times"] > 2
    assert found.evidence["span"] in answer
    assert reason(answer, cut_off=False, max_repetition=1) is None


@pytest.mark.parametrize(
    "answer",
    [
        PROSE,
        POEM,
        "ha ha ha ha ha",
        "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | {n * n} |" for n in range(40)),
        "\n".join(f"{n} x 7 = {n * 7}" for n in range(40)),
        "-" * 80,
    ],
)
def test_natural_repetition(answer: str) -> None:
    assert reason(answer) is None


@given(st.text(), st.integers(1, 5))
def test_any_text_can_be_measured(text: str, times: int) -> None:
    found = repetition(text * times)
    assert found is None or 0 <= found.share <= 1
    Noise().look(row(text))


def test_what_nobody_learns_is_not_looked_at() -> None:
    asked = row("Nine.", "I'm sorry, I can't. " * 40)
    assert Noise().look(asked) is asked
    earlier = Example(
        (Message("user", "q"), Message("assistant", "", train=0.0), Message("user", "q"), Message("assistant", "a")),
        Origin("s", 0),
    )
    assert Noise().look(earlier) is earlier


def test_real_rows(shared: Path) -> None:
    lines = (shared / "gsm8k/train.jsonl").read_text("utf-8").split("\n")
    values = [json.loads(line) for line in lines if line]
    assert [value for value in values if reason(value["answer"], value["question"])] == []
    for name, most in (("alpaca_en", 20), ("alpaca_zh", 36)):
        rows = json.loads((shared / f"alpaca/{name}.json").read_text("utf-8"))
        found = [reason(one["output"], one["instruction"]) for one in rows]
        assert 10 < sum(why is not None for why in found) <= most
        assert "the answer repeats itself" not in found and "the answer has boilerplate of a web page" not in found
