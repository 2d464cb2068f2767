"""f1: overlap of answer and reference in words (English) and characters (Chinese), after SQuAD's script."""

from __future__ import annotations

from collections import Counter

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.text import squad_tokens, without_articles


class F1(Metric):
    """Harmonic mean of precision and recall of the tokens, as a bag (Rajpurkar et al. 2016, arXiv 1606.05250).

    NFKC, lower case, no punctuation, no English articles; Chinese and kana by character, everything else by word.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "mean"

    @property
    def signature(self) -> str:
        return "f1|squad|nfkc:yes|case:no|punctuation:no|articles:no|zh:characters|others:words|v1"

    def score(self, observation: Observation) -> Score:
        if observation.reference is None or observation.text is None:
            return Score(None, missing(observation))
        expected = without_articles(squad_tokens(observation.reference))
        if not expected:
            return Score(None, "the reference has no word or character to compare")
        found = without_articles(squad_tokens(observation.text))
        shared = sum((Counter(found) & Counter(expected)).values())
        return Score(2 * shared / (len(found) + len(expected)))
