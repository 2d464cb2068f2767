"""repetition: how much of an answer says again what it said: the loops that language models fall into."""

from __future__ import annotations

from pydantic import Field

from tuneloop.evaluate.metrics import Metric, Observation, Score
from tuneloop.evaluate.text import tokens


class Repetition(Metric):
    """The share of an answer's n-grams that stood in it before, 1 - distinct / all ("seq-rep-n", Welleck et al. 2020,
    arXiv 1908.04319), of words and Chinese characters.

    An answer shorter than one n-gram repeats nothing; one without a word or character is unscored.
    """

    BETTER = "lower"
    NEEDS = "generation"
    AGGREGATION = "mean"
    REFERENCE = False

    n: int = Field(default=4, ge=1, le=20)
    """Words or characters that count as the same when they come again together."""

    @property
    def signature(self) -> str:
        return f"repetition|n:{self.n}|nfkc:yes|case:no|punctuation:no|zh:characters|others:words|v1"

    def score(self, observation: Observation) -> Score:
        if observation.text is None:
            return Score(None, "no answer")
        words = tokens(observation.text)
        if not words:
            return Score(None, "the answer has no word or character")
        grams = list(zip(*(words[start:] for start in range(self.n)), strict=False))
        return Score(1 - len(set(grams)) / len(grams) if grams else 0.0)
