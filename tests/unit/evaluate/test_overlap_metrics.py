"""bleu, chrf and rouge against the packages that others use, and by hand for Chinese."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh
from simulation import covered

from tuneloop.evaluate import ngrams
from tuneloop.evaluate.metrics import Metric, Observation
from tuneloop.evaluate.metrics.bleu import Bleu
from tuneloop.evaluate.metrics.chrf import Chrf
from tuneloop.evaluate.metrics.rouge_1 import Rouge1
from tuneloop.evaluate.metrics.rouge_2 import Rouge2
from tuneloop.evaluate.metrics.rouge_l import RougeL
from tuneloop.evaluate.text import BLEU_TOKENIZERS, bleu_tokenizer
from tuneloop.stats import bootstrap

ENGLISH = [
    ("The cat sat on the mat.", "The cat is on the mat."),
    ("It costs 1,000.50 dollars, doesn't it?", "It costs 1,000.5 dollars - doesn't it?"),
    ("a completely different sentence", "Nothing of this is shared here."),
    ("", "An empty answer is an answer."),
    ("Two &quot;quoted&quot; words & more", 'Two "quoted" words & more'),
    ("short", "A longer reference of eight words in all"),
]
CHINESE = [
    ("北京是中国的首都。", "北京是中华人民共和国的首都。"),
    ("价格是 12.5 元，不包邮。", "价格为12.5元（不含运费）。"),
    ("今天天气很好", "明天会下雨吗？"),
    ("他在 Apple 公司工作", "他在苹果（Apple）公司上班"),
]
JAPANESE = [("東京は日本の首都です。", "東京は日本の首都である。"), ("カメラを買いました", "新しいカメラを買った")]
TEXT = st.text(max_size=60) | st.text(alphabet="ab1 2.,-—。，“中文\n&quot;;'_[]{}<>~\t\u2028", max_size=40)
PAIRS = st.lists(st.tuples(TEXT, TEXT.filter(lambda text: bool(text.split()))), min_size=1, max_size=6)


def corpus(metric: Metric, pairs: list[tuple[str, str]]) -> float:
    """The number of the whole set, without its interval; NaN where nothing is scored."""
    scores = metric.score_all([Observation(reference, text=text) for text, reference in pairs], lambda count: None)
    scored = [score for score in scores if score.value is not None]
    if metric.AGGREGATION == "mean":
        return float(np.mean([score.value for score in scored])) if scored else float("nan")
    return (
        float(metric.combine(np.sum([score.statistics for score in scored], axis=0, keepdims=True))[0])
        if scored
        else float("nan")
    )


def single(metric: Metric, text: str, reference: str) -> float | None:
    return metric.score(Observation(reference, text=text)).value


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_tokenizers_are_those_of_sacrebleu(text: str) -> None:
    for name, theirs in (("13a", Tokenizer13a()), ("zh", TokenizerZh()), ("char", TokenizerChar())):
        assert BLEU_TOKENIZERS[name](text) == theirs(text.rstrip()).split(), name


@pytest.mark.parametrize(
    ("pairs", "tokenizer"), [(ENGLISH, "13a"), (CHINESE, "zh"), (JAPANESE, "char"), (ENGLISH[:2], "char")]
)
def test_bleu_is_that_of_sacrebleu(pairs: list[tuple[str, str]], tokenizer: str) -> None:
    texts, references = zip(*pairs, strict=True)
    theirs = BLEU(tokenize=tokenizer).corpus_score(texts, [references]).score / 100
    assert corpus(Bleu(tokenizer=tokenizer), pairs) == pytest.approx(theirs, abs=1e-9)  # type: ignore[arg-type]
    for text, reference in pairs:
        alone = BLEU(tokenize=tokenizer, effective_order=True).sentence_score(text, [reference]).score / 100
        assert single(Bleu(tokenizer=tokenizer), text, reference) == pytest.approx(alone, abs=1e-9)  # type: ignore[arg-type]
    lower = BLEU(tokenize=tokenizer, lowercase=True).corpus_score(texts, [references]).score / 100
    ours = Bleu.model_validate({"tokenizer": tokenizer, "ignore_case": True})
    assert corpus(ours, pairs) == pytest.approx(lower, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_bleu_and_chrf_are_those_of_sacrebleu_on_any_text(pairs: list[tuple[str, str]]) -> None:
    texts, references = zip(*pairs, strict=True)
    longest = max(len(BLEU_TOKENIZERS["13a"](reference)) for reference in references)
    kept = [pair for pair in pairs if BLEU_TOKENIZERS["13a"](pair[1])]  # <skipped> alone is no reference
    if longest >= 4 and len(kept) == len(pairs):
        theirs = BLEU(tokenize="13a").corpus_score(texts, [references]).score / 100
        assert corpus(Bleu(tokenizer="13a"), pairs) == pytest.approx(theirs, abs=1e-9)
    theirs = CHRF().corpus_score(texts, [references]).score / 100
    assert corpus(Chrf(), pairs) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("pairs", [ENGLISH, CHINESE, JAPANESE, [*ENGLISH, *CHINESE]])
def test_chrf_is_that_of_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    texts, references = zip(*pairs, strict=True)
    assert corpus(Chrf(), pairs) == pytest.approx(CHRF().corpus_score(texts, [references]).score / 100, abs=1e-9)
    wide = CHRF(beta=3, lowercase=True).corpus_score(texts, [references]).score / 100
    assert corpus(Chrf(beta=3, ignore_case=True), pairs) == pytest.approx(wide, abs=1e-9)
    for text, reference in pairs:
        alone = CHRF().sentence_score(text, [reference]).score / 100
        assert single(Chrf(), text, reference) == pytest.approx(alone, abs=1e-9)


def test_each_reference_chooses_its_tokenizer() -> None:
    assert [bleu_tokenizer(text) for text in ("a cat", "café", "一只猫", "猫です", "カメラ", "Ａ，Ｂ")] == [
        "13a", "13a", "zh", "char", "char", "13a"
    ]  # fmt: skip
    assert corpus(Bleu(), ENGLISH) == corpus(Bleu(tokenizer="13a"), ENGLISH)
    assert corpus(Bleu(), CHINESE) == corpus(Bleu(tokenizer="zh"), CHINESE)
    assert corpus(Bleu(tokenizer="13a"), CHINESE) < corpus(Bleu(), CHINESE) / 2  # what a wrong tokenizer does
    # a set of several languages is the sum of its parts, not one tokenizer for all
    mixed = [score.statistics for pairs in (ENGLISH, CHINESE)
             for score in Bleu().score_all([Observation(r, text=t) for t, r in pairs], lambda count: None)]  # fmt: skip
    assert corpus(Bleu(), [*ENGLISH, *CHINESE]) == Bleu().combine(np.sum(mixed, axis=0, keepdims=True))[0]


def test_bleu_of_short_answers_is_not_0_by_accident() -> None:
    """sacrebleu gives 0 where no reference has four tokens."""
    assert corpus(Bleu(), [("positive", "positive"), ("正面", "正面")]) == 1.0
    assert corpus(Bleu(), [("正面", "负面")]) == pytest.approx((1 / 2 * 1 / 2) ** 0.5)  # 面 of two; the pair smoothed
    assert corpus(Bleu(), [("", "positive")]) == 0.0
    assert Bleu().score(Observation("", text="x")).why == "the reference is empty"


@pytest.mark.parametrize(("metric", "name"), [(Rouge1(), "rouge1"), (Rouge2(), "rouge2"), (RougeL(), "rougeL")])
def test_rouge_is_that_of_rouge_score_on_english(metric: Metric, name: str) -> None:
    draw = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "Mat.", "don't", "x-ray", "3.5", "1,000", "e.g.", "(never)"]
    scorer = RougeScorer([name], use_stemmer=False)
    for _ in range(200):
        text, reference = (" ".join(draw.choices(words, k=draw.randint(2, 30))) for _ in range(2))
        theirs = scorer.score(reference, text)[name].fmeasure
        assert single(metric, text, reference) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "reference", "one", "two"),
    [  # by hand: characters of Chinese, words of English
        ("北京是首都", "首都是北京", 1.0, 2 * 2 / 8),
        ("北京", "北京是中国的首都", 2 * 2 / 10, 2 * 1 / 8),
        ("用 Python 写", "用Python写代码", 2 * 3 / 8, 2 * 2 / 6),
        ("天气好", "天气好", 1.0, 1.0),
        ("１２ 元", "12元", 1.0, 1.0),
        ("", "北京", 0.0, 0.0),
    ],
)
def test_rouge_of_chinese(text: str, reference: str, one: float, two: float) -> None:
    assert single(Rouge1(), text, reference) == pytest.approx(one)
    assert single(Rouge2(), text, reference) == pytest.approx(two)


def test_rouge_2_of_one_word_is_unscored() -> None:
    assert "fewer than 2" in (Rouge2().score(Observation("positive", text="positive")).why or "")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.randoms())
def test_aggregates_are_bounded_and_do_not_depend_on_the_order(
    pairs: list[tuple[str, str]], draw: random.Random
) -> None:
    for metric in (Bleu(), Chrf(), Rouge1(), Rouge2()):
        value = corpus(metric, pairs)
        mixed = list(pairs)
        draw.shuffle(mixed)
        assert np.isnan(value) or 0 <= value <= 1 + 1e-12
        assert corpus(metric, mixed) == pytest.approx(value, abs=1e-12, nan_ok=True)
        same = corpus(metric, [(reference, reference) for _, reference in pairs])
        assert np.isnan(same) or same == pytest.approx(1)


@given(st.lists(st.tuples(st.text("abc", max_size=9), st.text("abc", max_size=9)), max_size=8), st.integers(2, 5))
def test_shared_ngrams_are_those_of_two_bags(pairs: list[tuple[str, str]], order: int) -> None:
    def bag(text: str) -> list[str]:
        return [text[start : start + order] for start in range(len(text) - order + 1)]

    found, expected = zip(*pairs, strict=True) if pairs else ((), ())
    counted = ngrams.shared(ngrams.characters(found), ngrams.characters(expected), [1, order])
    for row, (one, two) in enumerate(pairs):
        common = sum(min(bag(one).count(gram), bag(two).count(gram)) for gram in set(bag(one)))
        counts = [part[row, 1] for part in counted]
        assert counts == [len(bag(one)), len(bag(two)), common]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [*ENGLISH, *CHINESE, *JAPANESE] * 3
    whole = corpus(Chrf(), pairs)
    monkeypatch.setattr(ngrams, "BLOCK", 40)
    assert corpus(Chrf(), pairs) == whole
    monkeypatch.setattr(ngrams, "MOST_ROWS", 2)
    assert corpus(Chrf(), pairs) == whole


@pytest.mark.parametrize("metric", [Bleu(), Chrf()])
def test_intervals_of_corpus_metrics_hold_what_they_promise(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of 100 drawn from a population of 2,000 pairs whose value is known: 95 % of the intervals hold it."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1_000)
    draw = random.Random(1)
    vocabulary = [f"word{number}" for number in range(40)]

    def pair() -> tuple[str, str]:
        reference = draw.choices(vocabulary, k=draw.randint(4, 30))
        kept = draw.random()
        return " ".join(w if draw.random() < kept else draw.choice(vocabulary) for w in reference), " ".join(reference)

    seen = [Observation(reference, text=text) for text, reference in (pair() for _ in range(2_000))]
    scores = metric.score_all(seen, lambda count: None)
    statistics = np.asarray([score.statistics for score in scores])
    assert 0.93 <= covered(statistics, metric.combine, size=100, sets=600) <= 0.97
