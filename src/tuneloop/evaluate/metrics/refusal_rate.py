"""refusal_rate: how often the model declines to answer, in English and Chinese."""

from __future__ import annotations

from tuneloop.evaluate.metrics import Metric, Observation, Score
from tuneloop.texts.refusals import RULES, disclaims, may_decline, refuses


class RefusalRate(Metric):
    """The share of answers that begin by declining ("I'm sorry, but I can't …", 抱歉，我无法…) or
    with what an AI is not.

    The rules are those by which the data step `noise` drops such rows. Neither direction is good in itself: give the
    numbers by a column (`slices`) that says which questions should be declined.
    """

    BETTER = "neither"
    NEEDS = "generation"
    AGGREGATION = "proportion"
    REFERENCE = False

    @property
    def signature(self) -> str:
        return f"refusal_rate|rules:{RULES}|v1"

    def score(self, observation: Observation) -> Score:
        if observation.text is None:
            return Score(None, "no answer")
        text = observation.text.strip()
        if not text:
            return Score(None, "the answer is empty")
        return Score(float(may_decline(text) and (refuses(text) or disclaims(text))))
