"""What metrics of shared n-grams have in common: many pairs of answer and reference are counted at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.ngrams import Shared

Pair = tuple[str, str]
"""Answer and reference."""


class OverlapMetric(Metric):
    """A metric of the n-grams that answer and reference share."""

    BETTER = "higher"
    NEEDS = "generation"

    @abstractmethod
    def overlap(self, pairs: Sequence[Pair]) -> Shared:
        """The n-grams of each pair."""

    @abstractmethod
    def valued(self, found: Sequence[int], expected: Sequence[int], common: Sequence[int]) -> Score:
        """The score of a pair by its counts, one an order."""

    def score(self, observation: Observation) -> Score:
        return self.score_all([observation], lambda count: None)[0]

    def score_all(self, observations: Sequence[Observation], progress: Callable[[int], None]) -> list[Score]:
        scores = [Score(None, missing(one)) for one in observations]
        pairs: dict[int, Pair] = {
            place: (one.text, one.reference)
            for place, one in enumerate(observations)
            if one.text is not None and one.reference is not None
        }
        counts = self.overlap(list(pairs.values()))
        for place, *given in zip(pairs, *(part.tolist() for part in counts), strict=True):
            scores[place] = self.valued(*given)
        progress(len(observations))
        return scores
