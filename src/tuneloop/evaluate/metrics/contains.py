"""contains: whether given texts stand in the answer."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.text import nfkc


class Contains(Metric):
    """1 when the answer contains the texts: those of the recipe, else those of a column, else the reference.

    Compared after NFKC, with one blank for any white space.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"

    texts: tuple[str, ...] | None = None
    """What is looked for in every answer; null takes the column, and without it the reference."""
    column: str | None = None
    """The column with the text, or the list of texts, that the row's answer must contain."""
    require: Literal["all", "any"] = "all"
    """Whether all of the texts must be there, or one."""
    ignore_case: bool = True
    """Upper and lower case are equal."""

    @field_validator("texts")
    @classmethod
    def _some(cls, texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if texts is not None and not (texts and all(text.strip() for text in texts)):
            raise ValueError("give at least one text, none of them empty")
        return texts

    @property
    def signature(self) -> str:
        what = "/".join(self.texts) if self.texts is not None else f"column:{self.column or 'no'},reference"
        case = "no" if self.ignore_case else "yes"
        return f"contains|texts:{what}|require:{self.require}|nfkc:yes|case:{case}|white_space:one_blank|v1"

    def score(self, observation: Observation) -> Score:
        if observation.text is None:
            return Score(None, missing(observation))
        wanted = [text for text in map(self._normal, self._wanted(observation)) if text]
        if not wanted:
            return Score(None, "no text to look for: no reference, and none in contains.texts or contains.column")
        text = self._normal(observation.text)
        return Score(float((all if self.require == "all" else any)(one in text for one in wanted)))

    def _wanted(self, observation: Observation) -> list[str]:
        if self.texts is not None:
            return list(self.texts)
        given = observation.meta.get(self.column) if self.column is not None else None
        if given is None:
            given = observation.reference or ""
        return [str(one) for one in given] if isinstance(given, list) else [str(given)]

    def _normal(self, text: str) -> str:
        text = " ".join(nfkc(text).split())
        return text.casefold() if self.ignore_case else text
