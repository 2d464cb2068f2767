"""accuracy: classification read out of free text, by the one label that the answer names."""

from __future__ import annotations

import re

from pydantic import model_validator

from tuneloop.evaluate.metrics import Metric, Observation, Score, missing
from tuneloop.evaluate.text import has_unspaced, nfkc


class Accuracy(Metric):
    """1 when the answer names exactly one label and it is the reference's; naming none or several is 0.

    A label written without spaces (Chinese) is found anywhere, any other as a whole word; a label inside a longer one
    that was found at the same place ("happy" in "not happy", 满意 in 不满意) does not count.
    """

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"

    labels: tuple[str, ...] | None = None
    """The labels; null takes the distinct references of the evaluated set, where they are few."""
    ignore_case: bool = True
    """Upper and lower case are equal."""

    @model_validator(mode="after")
    def _distinct(self) -> Accuracy:
        if self.labels is not None:
            normal = [self._normal(label) for label in self.labels]
            if len(set(normal)) < max(2, len(normal)) or not all(normal):
                raise ValueError("labels: give at least two labels, all different and none empty")
        return self

    @property
    def signature(self) -> str:
        labels = "auto" if self.labels is None else "/".join(sorted(self.labels))
        case = "no" if self.ignore_case else "yes"
        return f"accuracy|nfkc:yes|case:{case}|exactly_one_label|zh:substring|others:whole_word|labels:{labels}|v1"

    def score(self, observation: Observation) -> Score:
        if observation.reference is None or observation.text is None:
            return Score(None, missing(observation))
        labels = {self._normal(label) for label in (self.labels if self.labels is not None else observation.labels)}
        if len(labels) < 2:
            return Score(None, "no label set: the references are too many or all equal; set accuracy.labels")
        expected = self._normal(observation.reference)
        if expected not in labels:
            return Score(None, "the reference is none of the labels")
        return Score(float(self._named(self._normal(observation.text), labels) == {expected}))

    def _named(self, text: str, labels: set[str]) -> set[str]:
        """The labels that occur in the text, longest first, each taking its place away from shorter ones."""
        found: set[str] = set()
        for label in sorted(labels, key=lambda label: (-len(label), label)):
            text, count = re.subn(_pattern(label), " ¤ ", text)  # a mark that is no word, where nothing matches again
            if count:
                found.add(label)
        return found

    def _normal(self, text: str) -> str:
        text = " ".join(nfkc(text).split())
        return text.casefold() if self.ignore_case else text


def _pattern(label: str) -> str:
    """Whole words only at an end that is a letter or digit of a script with spaces; white space is one blank."""
    start = r"(?<![^\W_])" if _spaced(label[0]) else ""
    end = r"(?![^\W_])" if _spaced(label[-1]) else ""
    return start + re.escape(label) + end


def _spaced(character: str) -> bool:
    return character.isalnum() and not has_unspaced(character)
