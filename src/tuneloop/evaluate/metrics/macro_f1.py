"""macro_f1: classification where every label counts alike, however rare; with the confusion matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneloop.evaluate.metrics import Json, Observation, Score
from tuneloop.evaluate.metrics._labels import LabelMetric

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array


class MacroF1(LabelMetric):
    """The mean over labels of 2·TP / (2·TP + FP + FN), of the labels that references or answers name (scikit-learn's
    `f1_score` with average="macro").

    Labels are read as by `accuracy`. An answer that names none or several misses its label and takes nothing from
    another. A label that neither references nor answers name is left out, as in a slice that does not have it.
    """

    BETTER = "higher"
    AGGREGATION = "corpus"

    @property
    def signature(self) -> str:
        return f"macro_f1|{self.reading}|average:macro_over_labels_that_occur|v1"

    def score(self, observation: Observation) -> Score:
        named = self.named(observation)
        if isinstance(named, str):
            return Score(None, named)
        counts = [0.0] * (3 * len(named.labels))  # of each label: right, named, expected
        expected = named.labels.index(named.expected)
        counts[3 * expected + 2] = 1.0
        if named.found is not None:
            counts[3 * named.labels.index(named.found) + 1] = 1.0
            counts[3 * expected] = float(named.found == named.expected)
        return Score(counts[3 * expected], statistics=tuple(counts))

    def combine(self, sums_RS: Array) -> Array:
        import numpy as np

        from tuneloop.stats.bootstrap import ratio

        right, found, expected = (sums_RS[:, kind::3] for kind in range(3))
        occur = found + expected
        scores = np.divide(2 * right, occur, out=np.zeros_like(occur), where=occur > 0)
        return ratio(np.column_stack([scores.sum(axis=1), (occur > 0).sum(axis=1)]))

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """{"kind": "confusion", "labels", "columns", "counts"}: a row for each expected label, a column for each named
        one, the last for answers that name none or several."""
        pairs = [named for named in map(self.named, observations) if not isinstance(named, str)]
        if not pairs:
            return None
        labels = pairs[0].labels
        counted = Counter((pair.expected, pair.found) for pair in pairs)
        counts = [[counted[row, column] for column in (*labels, None)] for row in labels]
        return {"kind": "confusion", "labels": list(labels), "columns": [*labels, "none or several"], "counts": counts}
