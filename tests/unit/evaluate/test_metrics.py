from __future__ import annotations

import math
import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuneloop.evaluate.metrics import METRICS, Observation
from tuneloop.evaluate.metrics.accuracy import Accuracy
from tuneloop.evaluate.metrics.exact_match import ExactMatch
from tuneloop.evaluate.metrics.f1 import F1
from tuneloop.evaluate.metrics.perplexity import Perplexity
from tuneloop.evaluate.metrics.rouge_l import RougeL, longest_common_subsequence
from tuneloop.evaluate.text import squad_tokens, tokens

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9)


def value(metric: object, text: str, reference: str, labels: tuple[str, ...] = ()) -> float | None:
    assert hasattr(metric, "score")
    return metric.score(Observation(reference, text=text, labels=labels)).value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "reference", "options", "expected"),
    [
        ("Paris", "Paris", {}, 1),
        ("  Paris\n", "Paris", {}, 1),
        ("paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("Paris.", "Paris", {}, 0),
        ("Paris.", "Paris", {"ignore_punctuation": True}, 1),
        ("巴黎。", "巴黎", {"ignore_punctuation": True}, 1),
        ("真的吗？", "真的吗", {"ignore_punctuation": True, "nfkc": False}, 1),
        ("１２", "12", {}, 1),
        ("１２", "12", {"nfkc": False}, 0),
        ("", "Paris", {}, 0),
    ],
)
def test_exact_match(text: str, reference: str, options: dict[str, bool], expected: int) -> None:
    assert value(ExactMatch(**options), text, reference) == expected


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [  # worked out by hand from the rules of SQuAD's evaluation script
        ("the cat", "a cat", 1.0),
        ("The Cat!", "cat", 1.0),
        ("the cat sat", "cat", 2 * 0.5 * 1 / 1.5),
        ("blue green", "red", 0.0),
        ("cat cat dog", "cat dog dog", 2 / 3),
        ("$3.50", "350", 1.0),
        ("don't", "dont", 1.0),
        ("", "cat", 0.0),
        # Chinese by character
        ("北京市", "北京", 0.8),
        ("北京。", "北京", 1.0),
        ("价格是１２元", "12 元", 4 / 7),
        ("３．５度", "3.5度", 1.0),
        ("Paris，London", "paris london", 1.0),
    ],
)
def test_f1(text: str, reference: str, expected: float) -> None:
    assert value(F1(), text, reference) == pytest.approx(expected)


SQUAD_WORDS = ["a", "The", "an", "cat", "cats!", "don't", "$3.50", "1,000", "x-ray", "(never)", "U.S.", "U.S",
               '"quoted"', "snake_case", "theory", "Ana", "--", "...", "5%"]  # fmt: skip


def official_squad_f1(text: str, reference: str) -> float:
    """`compute_f1` of SQuAD's evaluate-v2.0.py, rewritten: lower, no punctuation, no articles, single blanks."""

    def normal(text: str) -> list[str]:
        kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    found, expected = normal(text), normal(reference)
    if not found or not expected:
        return float(found == expected)
    same = sum((Counter(found) & Counter(expected)).values())
    precision, recall = same / len(found), same / len(expected)
    return 2 * precision * recall / (precision + recall) if same else 0.0


@given(st.lists(st.sampled_from(SQUAD_WORDS), max_size=9), st.lists(st.sampled_from(SQUAD_WORDS), max_size=9))
def test_f1_is_that_of_squad_on_english(text: list[str], reference: list[str]) -> None:
    both = (" ".join(text), " ".join([*reference, "cat"]))  # a reference of articles alone keeps them here
    kept = set(" ".join(text).lower().split()) - {"a", "an", "the"}
    if kept:
        assert value(F1(), *both) == pytest.approx(official_squad_f1(*both))


def test_f1_of_a_reference_that_is_only_an_article() -> None:
    assert value(F1(), "The", "the") == 1.0
    assert METRICS.make("f1").score(Observation("?!", text="?!")).why is not None


SENTIMENT = ("positive", "negative")
CHINESE = ("满意", "不满意", "一般")


@pytest.mark.parametrize(
    ("text", "reference", "labels", "expected"),
    [
        ("positive", "positive", SENTIMENT, 1),
        ("The review is Positive.", "positive", SENTIMENT, 1),
        ("negative", "positive", SENTIMENT, 0),
        ("positive or negative", "positive", SENTIMENT, 0),
        ("I cannot say", "positive", SENTIMENT, 0),
        ("positively", "positive", SENTIMENT, 0),
        ("**positive**", "positive", SENTIMENT, 1),
        ("positive_1", "positive", SENTIMENT, 1),
        ("客户不满意。", "不满意", CHINESE, 1),
        ("客户不满意。", "满意", CHINESE, 0),
        ("客户满意。", "满意", CHINESE, 1),
        ("不满意，不是满意", "不满意", CHINESE, 0),
        ("客户ＯＫ", "ok", ("ok", "bad"), 0),  # no space before the word: not whole
        ("答案：ＯＫ", "ok", ("ok", "bad"), 1),
        ("A", "A", ("A", "B"), 1),
        ("A cat", "B", ("A", "B"), 0),
        ("not   happy", "not happy", ("happy", "not happy"), 1),
        ("C++", "C++", ("C", "C++"), 1),
    ],
)
def test_accuracy(text: str, reference: str, labels: tuple[str, ...], expected: int) -> None:
    assert value(Accuracy(), text, reference, labels) == expected
    assert value(Accuracy(labels=labels), text, reference) == expected


def test_accuracy_without_a_label_set_is_unscored() -> None:
    assert Accuracy().score(Observation("x", text="x")).value is None
    assert Accuracy().score(Observation("x", text="x", labels=("x",))).value is None
    assert Accuracy(labels=("a", "b")).score(Observation("c", text="c")).why == "the reference is none of the labels"
    for labels in (["a"], ["a", "A"], ["a", " "]):
        with pytest.raises(ValidationError, match="at least two labels"):
            Accuracy.model_validate({"labels": labels})


def test_perplexity_is_per_token() -> None:
    score = Perplexity().score(Observation("abc", nll=6.0, tokens=3.0))
    assert score.value == pytest.approx(math.exp(2)) and score.weight == 3
    for nll, count in [(None, 0.0), (1.0, 0.0), (float("nan"), 2.0), (float("inf"), 2.0), (1e9, 1.0)]:
        found = Perplexity().score(Observation("abc", nll=nll, tokens=count))
        assert found.value is None and found.why


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [  # worked out by hand from the definition 2·LCS / (m + n), with rouge-score's tokenisation of English
        ("the cat sat on the mat", "the cat is on the mat", 2 * 5 / 12),
        ("police killed the gunman", "police kill the gunman", 2 * 3 / 8),
        ("the gunman kill police", "police kill the gunman", 2 * 2 / 8),
        ("testing one two", "testing", 2 * 1 / 4),
        ("don't stop", "don t stop", 1.0),
        ("a-b c.d", "a b c d", 1.0),
        ("nothing shared", "other words", 0.0),
        ("", "words", 0.0),
        # identical Chinese, which that package scores 0
        ("北京是中国的首都", "北京是中国的首都", 1.0),
        ("首都是北京", "北京是首都", 2 * 2 / 10),
    ],
)
def test_rouge_l(text: str, reference: str, expected: float) -> None:
    assert value(RougeL(), text, reference) == pytest.approx(expected)


@given(WORDS, WORDS)
def test_longest_common_subsequence_by_the_table(first: list[str], second: list[str]) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert longest_common_subsequence(first, second) == table[-1][-1]


def test_tokens() -> None:
    assert tokens("Hello, 世界! ３ cafés 日本のカメラ ab12") == [
        "hello", "世", "界", "3", "cafés", "日", "本", "の", "カ", "メ", "ラ", "ab12"
    ]  # fmt: skip
    assert squad_tokens("it's 1,000.5") == ["its", "10005"]
    assert tokens("snake_case") == ["snake", "case"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_scores_stay_in_their_range(text: str, reference: str) -> None:
    for metric in (ExactMatch(), F1(), RougeL()):
        found = value(metric, text, reference)
        assert found is None or 0 <= found <= 1
        same = value(metric, reference, reference)
        assert same is None or same == 1
