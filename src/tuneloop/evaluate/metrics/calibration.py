"""calibration: whether the model is right as often as it is sure, over the choices' likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tuneloop.evaluate.metrics import Json, Observation, Score
from tuneloop.evaluate.metrics._choices import ChoiceMetric

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array


class Calibration(ChoiceMetric):
    """Expected calibration error: Σ over bins of confidence of n/N · |accuracy - mean confidence| (Guo et al. 2017,
    arXiv 1706.04599). Confidence is the probability of the likeliest choice among the choices.

    `brier` is half the squared distance of the probabilities and the truth (Brier 1950), in [0, 1], for two choices
    the usual binary score. Bins make the error of a small set too large; the Brier score has no such bias.
    """

    BETTER = "lower"
    AGGREGATION = "corpus"

    measure: Literal["ece", "brier"] = "ece"
    """Which number is reported."""
    bins: int = Field(default=10, ge=2, le=50)
    """Bins of confidence, equally wide; of the error and of the reliability table."""

    @property
    def signature(self) -> str:
        how = f"bins:{self.bins}_equal_width" if self.measure == "ece" else "half_squared_distance"
        return f"calibration|{self.measure}|{how}|likelihood_per:{self.per}|softmax_over_choices|v1"

    def score(self, observation: Observation) -> Score:
        weighed = self.weighed(observation)
        if isinstance(weighed, str):
            return Score(None, weighed)
        truth = [float(place == weighed.right) for place in range(len(weighed.probabilities))]
        brier = sum((p - t) ** 2 for p, t in zip(weighed.probabilities, truth, strict=True)) / 2
        if self.measure == "brier":
            return Score(brier, statistics=(brier, 1.0))
        counts = [0.0] * (3 * self.bins)  # of each bin: examples, confidence, right
        confidence = max(weighed.probabilities)
        place = self._bin(confidence)
        # of equally likely choices none was chosen: each counts its share
        share = truth[weighed.right] / weighed.probabilities.count(confidence)
        right = share if weighed.probabilities[weighed.right] == confidence else 0.0
        counts[3 * place : 3 * place + 3] = [1.0, confidence, right]
        return Score(abs(confidence - right), statistics=tuple(counts))

    def combine(self, sums_RS: Array) -> Array:
        import numpy as np

        from tuneloop.stats.bootstrap import ratio

        if self.measure == "brier":
            return ratio(sums_RS)
        count, confidence, right = (sums_RS[:, kind::3] for kind in range(3))
        return ratio(np.column_stack([np.abs(right - confidence).sum(axis=1), count.sum(axis=1)]))

    def distance(self, sums_RS: Array, whole_1S: Array) -> Array | None:
        """Resampling adds noise to every bin's gap, so that errors of resamples are larger than the sample's. The noise
        itself is what a resample's gaps differ by; by the triangle inequality the error differs by no more."""
        import numpy as np

        if self.measure == "brier":
            return None
        with np.errstate(invalid="ignore"):
            gaps_RB, gap_1B = ((sums[:, 2::3] - sums[:, 1::3]) / sums[:, ::3].sum(axis=1, keepdims=True)
                               for sums in (sums_RS, whole_1S))  # fmt: skip
        return np.abs(gaps_RB - gap_1B).sum(axis=1)

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """{"kind": "reliability", "bins": [{"low", "high", "n", "confidence", "accuracy"}]}, bins with examples."""
        import numpy as np

        table = self.model_copy(update={"measure": "ece"})
        given = [score.statistics for score in map(table.score, observations) if score.value is not None]
        if not given:
            return None
        sums = np.asarray(given).sum(axis=0).reshape(self.bins, 3).tolist()
        bins = [
            {"low": place / self.bins, "high": (place + 1) / self.bins, "n": round(n),
             "confidence": confidence / n, "accuracy": right / n}
            for place, (n, confidence, right) in enumerate(sums) if n
        ]  # fmt: skip
        return {"kind": "reliability", "bins": bins}

    def _bin(self, confidence: float) -> int:
        """Bins are open below and closed above, as in the paper."""
        place = int(confidence * self.bins)
        return max(0, place - (place == confidence * self.bins))
