"""regex: whether the answer has the form that a regular expression describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import field_validator

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.texts import patterns


class Regex(Metric):
    """1 when the pattern is found in the answer. Patterns are those of Python's `regex` package.

    A pattern that takes more than 2 seconds on one answer (repeats inside repeats) is not tried again: its rows are
    unscored with the reason.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"
    REFERENCE = False

    pattern: str | None = None
    """The pattern of all rows; null takes the column."""
    column: str = "pattern"
    """The column with the row's own pattern, where the recipe gives none."""
    whole: bool = False
    """The whole answer, without white space at its ends, must match."""
    ignore_case: bool = False
    """Upper and lower case are equal."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            patterns.compiled(pattern)
        return pattern

    @property
    def signature(self) -> str:
        what = f"column:{self.column}" if self.pattern is None else f"pattern:{self.pattern}"
        where, case = ("whole" if self.whole else "anywhere"), ("no" if self.ignore_case else "yes")
        return f"regex|{what}|{where}|case:{case}|nfkc:no|v1"

    def score(self, observation: Observation) -> Score:
        return self._score(observation, {})

    def score_all(self, observations: Sequence[Observation], progress: Callable[[int], None]) -> list[Score]:
        slow: dict[str, str] = {}
        scores = [self._score(observation, slow) for observation in observations]
        progress(len(scores))
        return scores

    def _score(self, observation: Observation, slow: dict[str, str]) -> Score:
        """`slow` collects the patterns that took too long, with what is said of them."""
        pattern = self.pattern if self.pattern is not None else observation.meta.get(self.column)
        if observation.text is None:
            return Score(None, missing(observation))
        if not isinstance(pattern, str) or not pattern:
            return Score(None, f"no pattern: give regex.pattern, or the column {self.column}")
        if pattern not in slow:
            try:
                text = observation.text.strip() if self.whole else observation.text
                return Score(float(patterns.found(pattern, text, ignore_case=self.ignore_case, whole=self.whole)))
            except (TimeoutError, ValueError) as error:
                slow[pattern] = str(error)
        return Score(None, slow[pattern])
