"""bleu: n-gram precision over the whole set, as sacrebleu computes it, with the right tokens for Chinese."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tuneloop.evaluate import ngrams
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics._overlap import OverlapMetric, Pair
from tuneloop.evaluate.text import BLEU_TOKENIZERS, bleu_tokenizer

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array

ORDERS = (1, 2, 3, 4)


class Bleu(OverlapMetric):
    """Corpus BLEU in [0, 1]: brevity penalty times the geometric mean of the precisions of 1- to 4-grams (Papineni et
    al. 2002), smoothed as by sacrebleu ("exp"). A hundredth of sacrebleu's number for the same tokenizer.

    With `auto` each reference chooses the tokenizer for itself and its answer, so that sets of several languages are
    right, and so are their slices: `char` with kana, `zh` with Chinese, else `13a`. Where no reference is four tokens
    long, n-grams go up to the longest that references have; sacrebleu gives 0 there.
    """

    AGGREGATION = "corpus"

    tokenizer: Literal["auto", "13a", "zh", "char"] = "auto"
    """sacrebleu's `13a` (languages with spaces), `zh` or `char`; auto: by the script of each reference."""
    ignore_case: bool = False
    """Upper and lower case are equal."""

    @property
    def signature(self) -> str:
        how = "auto(kana:char,zh:zh,others:13a)" if self.tokenizer == "auto" else self.tokenizer
        case = "lc" if self.ignore_case else "mixed"
        return f"bleu|nrefs:1|case:{case}|nfkc:no|tok:{how}|order:4_or_longest_of_references|smooth:exp|scale:1|v1"

    def overlap(self, pairs: Sequence[Pair]) -> ngrams.Shared:
        sides: tuple[list[list[str]], list[list[str]]] = ([], [])
        for pair in pairs:
            tokenize = BLEU_TOKENIZERS[bleu_tokenizer(pair[1]) if self.tokenizer == "auto" else self.tokenizer]
            for side, text in zip(sides, pair, strict=True):
                side.append(tokenize(text.lower() if self.ignore_case else text))
        return ngrams.shared(ngrams.words(sides[0]), ngrams.words(sides[1]), ORDERS)

    def valued(self, found: Sequence[int], expected: Sequence[int], common: Sequence[int]) -> Score:
        if not expected[0]:
            return Score(None, "the reference is empty")
        statistics = (*map(float, found), *map(float, expected), *map(float, common))
        return Score(sentence_bleu(found, expected, common), statistics=statistics)

    def combine(self, sums_RS: Array) -> Array:
        import numpy as np

        found, expected, common = (sums_RS[:, 4 * kind : 4 * kind + 4] for kind in range(3))
        counted = expected > 0
        # the k-th order without a match counts 1 / (2^k · n-grams), as in mteval-v13a
        missed = np.cumsum((common == 0) & (found > 0), axis=1)
        top = np.where(common > 0, common, 0.5**missed)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(counted, np.where(found > 0, np.log(top / found), -np.inf), 0.0)
            brevity = np.minimum(0.0, 1 - expected[:, 0] / found[:, 0])
            value = np.exp(logs.sum(axis=1) / counted.sum(axis=1) + brevity)
        value = np.where(common.sum(axis=1) > 0, value, 0.0)
        return np.where(counted.any(axis=1), value, np.nan)


def sentence_bleu(found: Sequence[int], expected: Sequence[int], common: Sequence[int]) -> float:
    """BLEU of one pair, of the orders that the answer has (sacrebleu's `effective_order`)."""
    if not any(common):
        return 0.0
    missed, logs = 0, []
    for ours, shared in zip(found, common, strict=True):
        if ours:
            missed += not shared
            logs.append(math.log((shared or 0.5**missed) / ours))
    return math.exp(sum(logs) / len(logs) + min(0.0, 1 - expected[0] / found[0]))
