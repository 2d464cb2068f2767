"""exact_match: whether the answer is the reference, character for character after a stated normalisation."""

from __future__ import annotations

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.text import nfkc


class ExactMatch(Metric):
    """1 when answer and reference are equal, else 0. White space at both ends never counts."""

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"

    nfkc: bool = True
    """Compare after Unicode NFKC, so that full-width and half-width forms are equal."""
    ignore_case: bool = False
    """Upper and lower case are equal."""
    ignore_punctuation: bool = False
    """Punctuation at the end is left out ("Paris." is "Paris", "巴黎。" is "巴黎")."""

    @property
    def signature(self) -> str:
        parts = ["exact_match", f"nfkc:{'yes' if self.nfkc else 'no'}", f"case:{'no' if self.ignore_case else 'yes'}"]
        return "|".join([*parts, f"end_punctuation:{'no' if self.ignore_punctuation else 'yes'}", "strip:yes", "v1"])

    def score(self, observation: Observation) -> Score:
        if observation.reference is None or observation.text is None:
            return Score(None, missing(observation))
        return Score(float(self._normal(observation.text) == self._normal(observation.reference)))

    def _normal(self, text: str) -> str:
        text = nfkc(text) if self.nfkc else text
        text = text.casefold() if self.ignore_case else text
        return text.strip().rstrip(".!?。！？…").rstrip() if self.ignore_punctuation else text.strip()
