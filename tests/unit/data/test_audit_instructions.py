"""Verbs and objects, topics and variety of instructions, in Chinese and English."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.data.audit_facts import card_of, codes, pairs
from tuneloop.data.audit.phrases import phrase, phrases
from tuneloop.data.audit.topics import topics
from tuneloop.data.audit.units import chinese_words, words


@pytest.mark.parametrize(("text", "verb", "thing"), [
    ("Give three tips for staying healthy.", "give", "tips"),
    ("Please write a short story about a lighthouse.", "write", "story"),
    ("From the list of words, identify the two-word antonym", "identify", "antonym"),
    ("Come up with an appropriate tagline for the product.", "come up with", "tagline"),
    ("Compare and contrast the use of web technologies", "compare", "use"),
    ("Explain how virtual reality works.", "explain", "how"),
    ("Rewrite this sentence without changing the meaning:", "rewrite", "sentence"),
    ("What are the benefits of exercising?", "what?", ""),
    ("Is it possible to be both?", "yes or no?", ""),
    ("请解释法国大革命的原因", "解释", "原因"),
    ("编写一个Python程序来反转以下列表。", "编写", "程序"),
    ("将给定的文本归类为说明文或叙述文。", "归类", "文本"),
    ("使用提供的信息，构建一个方程", "构建", "方程"),
    ("给出三个保持健康的小贴士。", "给出", "小贴士"),
    ("如何向非技术背景的人解释神经网络？", "如何？", ""),
    ("24小时有多少分钟？", "多少？", ""),
    ("空が青い理由を簡単に説明してください", "", ""), ("", "", ""), ("。", "", ""), ("42", "", ""),
])  # fmt: skip
def test_verb_and_object(text: str, verb: str, thing: str) -> None:
    assert phrase(text) == (verb, thing)


@given(st.text())
def test_any_text_has_a_phrase(text: str) -> None:
    verb, thing = phrase(text)
    assert isinstance(verb, str) and (verb or not thing)


def test_plurals_count_with_their_singular() -> None:
    found = phrases(["Write a story.", "Write stories.", "List two boxes.", "List a box.", "Name two tips."])
    assert found["list", "box"] == 2 and found["name", "tips"] == 1


def test_words_in_both_languages() -> None:
    assert words("GPT-3 模型, don't") == ["gpt", "3", "模", "型", "don't"]
    assert chinese_words("自然语言处理，真有趣！") == ["自然语言", "处理", "真", "有趣"]


@pytest.mark.parametrize("kinds", [
    ["Translate the sentence into French: ", "Compute the sum of numbers ", "Describe the weather in "],
    ["把句子翻译成法语：", "计算这些数字之和", "描述一下当地天气"],
])  # fmt: skip
def test_prototypes_cover_what_is_alike(kinds: list[str]) -> None:
    rng = random.Random(0)
    texts = [kind + "".join(rng.choices("abcdefghijklmnop", k=6)) for kind in kinds for _ in range(20)]
    found = topics(texts)
    assert found.sizes == [20, 20, 20] and found.effective == pytest.approx(3.0)
    assert found.needed(0.5) == 2 and found.needed(0.9) == 3
    assert [texts[prototype].startswith(tuple(kinds)) for prototype in found.prototypes] == [True] * 3


def test_topics_of_nothing_and_of_strange_texts() -> None:
    assert topics([]).needed(0.5) == 0 and topics([]).effective == 0
    found = topics(["", "", "!!", "one word"])
    assert sum(found.sizes) == 4


def test_variety_falls_when_texts_repeat() -> None:
    rng = random.Random(1)
    for letters in ("的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要", "abcdefghijklmnopqrstuvw xyz"):
        varied = card_of(pairs([("".join(rng.choices(letters, k=80)), "a") for _ in range(60)]))["diversity"]
        same = card_of(pairs([("".join(rng.choices(letters, k=80)), "a")] * 60))
        one, other = varied["measures"][0], same["diversity"]["measures"][0]
        assert one["distinct_2"] > 2 * other["distinct_2"] and other["gzip"] > 2 * one["gzip"]
        assert codes(same)["near_duplicates_left"] == "WARN"
        assert not varied["near_duplicates"]["more_than_once"]


def test_chinese_is_measured_by_character_and_by_word() -> None:
    measures = card_of(pairs([("写一首关于春天的诗", "春眠不觉晓")]))["diversity"]["measures"]
    assert [(one["of"], one["unit"]) for one in measures] == [
        ("instruction", "characters"), ("instruction", "words"), ("answer", "characters"), ("answer", "words"),
    ]  # fmt: skip
