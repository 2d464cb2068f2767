"""chrf: character n-grams that answers and references share over the whole set, as sacrebleu computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from tuneloop.evaluate import ngrams
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics._overlap import OverlapMetric, Pair

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array

ORDERS = (1, 2, 3, 4, 5, 6)


class Chrf(OverlapMetric):
    """Corpus chrF in [0, 1]: F-score of the mean precision and recall of 1- to 6-grams of characters, without white
    space (Popović 2015, W15-3049). A hundredth of sacrebleu's number.

    It needs no tokenizer, and so suits Chinese, English and mixed sets alike.
    """

    AGGREGATION = "corpus"

    beta: float = Field(default=2.0, gt=0)
    """How much more recall counts than precision."""
    ignore_case: bool = False
    """Upper and lower case are equal."""

    @property
    def signature(self) -> str:
        case = "lc" if self.ignore_case else "mixed"
        return f"chrf|nrefs:1|case:{case}|nfkc:no|eff:yes|nc:6|nw:0|space:no|beta:{self.beta:g}|scale:1|v1"

    def overlap(self, pairs: Sequence[Pair]) -> ngrams.Shared:
        sides = [["".join(pair[side].split()) for pair in pairs] for side in (0, 1)]
        if self.ignore_case:
            sides = [[text.lower() for text in side] for side in sides]
        return ngrams.shared(ngrams.characters(sides[0]), ngrams.characters(sides[1]), ORDERS)

    def valued(self, found: Sequence[int], expected: Sequence[int], common: Sequence[int]) -> Score:
        if not expected[0]:
            return Score(None, "the reference is empty")
        # n-grams of an order that the reference does not have are not held against the answer
        held = [float(ours if theirs else 0) for ours, theirs in zip(found, expected, strict=True)]
        statistics = (*held, *map(float, expected), *map(float, common))
        pairs = [(match / ours, match / theirs) for ours, theirs, match in zip(held, expected, common, strict=True)
                 if ours and theirs]  # fmt: skip
        precision, recall = (sum(pair[side] for pair in pairs) / max(1, len(pairs)) for side in (0, 1))
        weight = self.beta**2
        together = weight * precision + recall
        return Score((1 + weight) * precision * recall / together if together else 0.0, statistics=statistics)

    def combine(self, sums_RS: Array) -> Array:
        import numpy as np

        found, expected, common = (sums_RS[:, 6 * kind : 6 * kind + 6] for kind in range(3))
        usable = (found > 0) & (expected > 0)
        orders = np.maximum(usable.sum(axis=1), 1)
        precision, recall = (
            np.divide(common, total, out=np.zeros_like(common), where=usable).sum(axis=1) / orders
            for total in (found, expected)
        )
        weight = self.beta**2
        top, bottom = (1 + weight) * precision * recall, weight * precision + recall
        value = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        return np.where(expected.sum(axis=1) > 0, value, np.nan)
