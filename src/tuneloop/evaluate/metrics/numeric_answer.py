"""numeric_answer: whether the answer's final number is the reference's, as in GSM8K."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.numbers import Percent, final_number


class NumericAnswer(Metric):
    """1 when the final numbers are equal as numbers (1,234.50 is 1234.5, ３万 is 30000); an answer without one is 0.

    The final number is the first after the last marker (GSM8K's `####`), else after the last `\\boxed{`, else the last
    of the text (Cobbe et al. 2021, arXiv 2110.14168, and the "flexible" reading of lm-evaluation-harness).
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"

    marker: str = "####"
    """What stands before the final number; empty looks for none."""
    strict: bool = False
    """An answer without the marker is wrong."""
    percent: Percent = "number"
    """What 50% is: the `number` 50, or the `share` 0.5."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Relative difference up to which numbers are equal; 0.01 allows one in a hundred."""

    @property
    def signature(self) -> str:
        how = f"strict:{'yes' if self.strict else 'no'}|percent:{self.percent}|tolerance:{self.tolerance:g}"
        return f"numeric_answer|marker:{self.marker}|boxed:yes|else:last_number|{how}|nfkc:yes|v1"

    def score(self, observation: Observation) -> Score:
        if observation.reference is None or observation.text is None:
            return Score(None, missing(observation))
        expected = final_number(observation.reference, self.marker, self.percent)
        if expected is None:
            return Score(None, "the reference has no number")
        if self.strict and self.marker not in observation.text:
            return Score(0.0)
        found = final_number(observation.text, self.marker, self.percent)
        return Score(float(found is not None and self._equal(found, expected)))

    def _equal(self, found: Decimal, expected: Decimal) -> bool:
        if not self.tolerance:
            return found == expected
        return abs(found - expected) <= Decimal(str(self.tolerance)) * max(abs(found), abs(expected))
