"""What multiple_choice and calibration share: how likely each choice is, and which is the right one."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from tuneloop.evaluate.metrics import Metric, Observation
from tuneloop.evaluate.text import nfkc


class Weighed(NamedTuple):
    """The choices' probabilities, which add up to 1, and the place of the right one."""

    probabilities: tuple[float, ...]
    right: int

    @property
    def best(self) -> int | None:
        """The place of the likeliest choice; None where several are equally likely."""
        top = max(self.probabilities)
        return self.probabilities.index(top) if self.probabilities.count(top) == 1 else None


class ChoiceMetric(Metric):
    """Options and reading of metrics of choices by likelihood."""

    NEEDS = "choices"

    per: Literal["choice", "token", "byte"] = "choice"
    """What likelihoods are divided by: nothing (the whole choice), its tokens, or its bytes, so that long choices have
    an equal chance (`acc_norm` of lm-evaluation-harness)."""

    def weighed(self, observation: Observation) -> Weighed | str:
        """The choices' probabilities, or why there are none."""
        if observation.reference is None:
            return "no reference text (a tool call or an empty answer)"
        if len(observation.choices) < 2:
            return "fewer than two choices"
        texts = [nfkc(choice.text).strip() for choice in observation.choices]
        expected = nfkc(observation.reference).strip()
        if texts.count(expected) != 1:
            return "the reference is none of the choices" if expected not in texts else "two choices are equal"
        sizes = {
            "choice": [1.0] * len(texts),
            "token": [choice.tokens for choice in observation.choices],
            "byte": [float(len(choice.text.encode("utf-8", "surrogatepass"))) for choice in observation.choices],
        }
        losses = [choice.nll / size if size else math.nan
                  for choice, size in zip(observation.choices, sizes[self.per], strict=True)]  # fmt: skip
        if not all(map(math.isfinite, losses)):
            return "a choice has a likelihood of zero or none at all"
        weights = [math.exp(min(losses) - loss) for loss in losses]
        return Weighed(tuple(weight / sum(weights) for weight in weights), texts.index(expected))
