"""rouge_l: longest common subsequence of answer and reference, by Chinese characters and English words."""

from __future__ import annotations

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.text import ROUGE_TOKENS, tokens


class RougeL(Metric):
    """Sentence-level ROUGE-L F-measure with equal weights (Lin 2004, "ROUGE: A Package for Automatic Evaluation").

    English is tokenised as by the rouge-score package without stemming; that package itself scores Chinese as 0.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "mean"

    @property
    def signature(self) -> str:
        return f"rouge_l|f_measure|beta:1|{ROUGE_TOKENS}|v1"

    def score(self, observation: Observation) -> Score:
        if observation.reference is None or observation.text is None:
            return Score(None, missing(observation))
        expected, found = tokens(observation.reference), tokens(observation.text)
        if not expected:
            return Score(None, "the reference has no word or character to compare")
        if not found:
            return Score(0.0)
        common = longest_common_subsequence(found, expected)
        return Score(2 * common / (len(found) + len(expected)))


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """Its length, by the bit-parallel recurrence of Hyyrö 2004: one integer operation for each token of `second`."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    everything = (1 << len(first)) - 1
    row = everything
    for token in second:
        match = row & places.get(token, 0)
        row = ((row + match) | (row - match)) & everything
    return len(first) - row.bit_count()
