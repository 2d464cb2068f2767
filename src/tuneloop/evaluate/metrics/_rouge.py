"""ROUGE-N for any N: n-grams by Chinese characters and English words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tuneloop.evaluate import ngrams
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics._overlap import OverlapMetric, Pair
from tuneloop.evaluate.text import ROUGE_TOKENS, tokens


class RougeN(OverlapMetric):
    """F-measure of the n-grams of one length."""

    AGGREGATION = "mean"
    ORDER: ClassVar[int]

    @property
    def signature(self) -> str:
        return f"rouge_{self.ORDER}|f_measure|beta:1|{ROUGE_TOKENS}|v1"

    def overlap(self, pairs: Sequence[Pair]) -> ngrams.Shared:
        found, expected = ([tokens(pair[side]) for pair in pairs] for side in (0, 1))
        return ngrams.shared(ngrams.words(found), ngrams.words(expected), [self.ORDER])

    def valued(self, found: Sequence[int], expected: Sequence[int], common: Sequence[int]) -> Score:
        if not expected[0]:
            return Score(None, f"the reference has fewer than {self.ORDER} words or characters to compare")
        return Score(2 * common[0] / (found[0] + expected[0]))
