"""accuracy: classification read out of free text, by the one label that the answer names."""

from __future__ import annotations

from tuneloop.evaluate.metrics import Observation, Score
from tuneloop.evaluate.metrics._labels import LabelMetric


class Accuracy(LabelMetric):
    """1 when the answer names exactly one label and it is the reference's; naming none or several is 0.

    A label written without spaces (Chinese) is found anywhere, any other as a whole word; a label inside a longer one
    that was found at the same place ("happy" in "not happy", 满意 in 不满意) does not count.
    """

    BETTER = "higher"
    AGGREGATION = "proportion"

    @property
    def signature(self) -> str:
        return f"accuracy|{self.reading}|v1"

    def score(self, observation: Observation) -> Score:
        named = self.named(observation)
        return Score(None, named) if isinstance(named, str) else Score(float(named.found == named.expected))
