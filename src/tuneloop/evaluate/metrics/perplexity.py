"""perplexity: how surprised the model is by the reference answers, over all their tokens."""

from __future__ import annotations

import math

from tuneloop.evaluate.metrics import Metric, Observation, Score


class Perplexity(Metric):
    """exp(Σ negative log-likelihood / Σ tokens) over the supervised tokens, so that long answers count for more.

    The stop token counts, as it is trained. Perplexities of models with different tokenizers do not compare.
    """

    BETTER = "lower"
    NEEDS = "likelihood"
    AGGREGATION = "geometric"
    BOUNDED = False

    @property
    def signature(self) -> str:
        return "perplexity|supervised_tokens|token_weighted|stop_token:yes|v1"

    def score(self, observation: Observation) -> Score:
        if observation.nll is None or not observation.tokens:
            return Score(None, "no supervised tokens")
        mean = observation.nll / observation.tokens
        if not math.isfinite(mean) or mean > 700:  # beyond it the exponential leaves the doubles
            return Score(None, "the model gives the reference a likelihood of zero or none at all")
        return Score(math.exp(mean), weight=observation.tokens)
