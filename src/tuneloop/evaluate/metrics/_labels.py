"""What accuracy and macro_f1 share: the label that an answer names, and the one that it should."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import model_validator

from tuneloop.evaluate.labels import named_labels, normal_label
from tuneloop.evaluate.metrics import Metric, Observation, missing


class Named(NamedTuple):
    """Both in their normal form; `found` is None where the answer names no label or several."""

    expected: str
    found: str | None
    labels: tuple[str, ...]
    """All labels, sorted."""


class LabelMetric(Metric):
    """Options and reading of metrics of classification by free text."""

    NEEDS = "generation"

    labels: tuple[str, ...] | None = None
    """The labels; null takes the distinct references of the evaluated set, where they are few."""
    ignore_case: bool = True
    """Upper and lower case are equal."""

    @model_validator(mode="after")
    def _distinct(self) -> LabelMetric:
        if self.labels is not None:
            normal = [normal_label(label, self.ignore_case) for label in self.labels]
            if len(set(normal)) < max(2, len(normal)) or not all(normal):
                raise ValueError("labels: give at least two labels, all different and none empty")
        return self

    @property
    def reading(self) -> str:
        """The part of a signature that says how labels are read."""
        labels = "auto" if self.labels is None else "/".join(sorted(self.labels))
        case = "no" if self.ignore_case else "yes"
        return f"nfkc:yes|case:{case}|exactly_one_label|zh:substring|others:whole_word|labels:{labels}"

    def named(self, observation: Observation) -> Named | str:
        """What the answer names and should name, or why that is not known."""
        if observation.reference is None or observation.text is None:
            return missing(observation)
        given = self.labels if self.labels is not None else observation.labels
        labels = {normal_label(label, self.ignore_case) for label in given}
        if len(labels) < 2:
            return f"no label set: the references are too many or all equal; set {self._title}.labels"
        expected = normal_label(observation.reference, self.ignore_case)
        if expected not in labels:
            return "the reference is none of the labels"
        found = named_labels(normal_label(observation.text, self.ignore_case), labels)
        return Named(expected, found.pop() if len(found) == 1 else None, tuple(sorted(labels)))

    @property
    def _title(self) -> str:
        return self.signature.partition("|")[0]
