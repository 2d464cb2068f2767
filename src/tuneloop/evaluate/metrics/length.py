"""length: how long answers are, in words (Chinese: characters)."""

from __future__ import annotations

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.texts.words import count_words


class Length(Metric):
    """Words of the answer; a Chinese or kana character is one. An empty answer has none.

    Neither direction is good in itself: a change says that tuning made answers longer or shorter.
    """

    BETTER = "neither"
    NEEDS = "generation"
    AGGREGATION = "mean"
    BOUNDED = False
    REFERENCE = False

    relative: bool = False
    """Divide by the words of the reference; 1 is as long as it."""

    @property
    def signature(self) -> str:
        return f"length|{'ratio_to_reference' if self.relative else 'words'}|zh:characters|others:words|v1"

    def score(self, observation: Observation) -> Score:
        if observation.text is None:
            return Score(None, "no answer")
        words = float(count_words(observation.text))
        if not self.relative:
            return Score(words)
        if observation.reference is None:
            return Score(None, missing(observation))
        expected = count_words(observation.reference)
        return Score(words / expected) if expected else Score(None, "the reference has no word or character")
