"""The family of metrics: a file is a metric. A metric scores one example; intervals and pages are made elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from tuneloop.core.plugins import Family, Plugin

Better = Literal["higher", "lower"]
Needs = Literal["generation", "likelihood"]
Aggregation = Literal["proportion", "mean", "geometric"]
"""How scores become one number: `proportion` of 0/1 scores (Wilson, McNemar), `mean` of scores in [0, 1] (bootstrap),
`geometric` = the weighted geometric mean exp(Σ weight · ln value / Σ weight) (bootstrap over examples)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one model did with one example; the half that a metric does not need is None."""

    reference: str | None
    """The expected answer, None where the example has none (a tool call, an empty answer)."""
    text: str | None = None
    """The generated answer."""
    nll: float | None = None
    """Negative log-likelihood of the reference's tokens in nats, summed with their loss weights."""
    tokens: float | None = None
    """The sum of those weights: the number of supervised tokens in the usual case."""
    labels: tuple[str, ...] = ()
    """The distinct references of the whole set where they are few, as in classification; else empty."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value for one example. `value` None means unscored, for the reason `why`: never the same as 0."""

    value: float | None
    why: str | None = None
    weight: float = 1.0


def missing(observation: Observation) -> str:
    """The reason of metrics on texts for leaving an observation without reference or answer unscored."""
    return "no reference text (a tool call or an empty answer)" if observation.reference is None else "no answer"


class Metric(Plugin):
    """Interface of the family: three class facts, a signature, and the scoring of one observation."""

    BETTER: ClassVar[Better]
    NEEDS: ClassVar[Needs]
    AGGREGATION: ClassVar[Aggregation]

    @property
    @abstractmethod
    def signature(self) -> str:
        """Everything that changes the number: normalisation, tokenisation, version. Unequal ones do not compare."""

    @abstractmethod
    def score(self, observation: Observation) -> Score:
        """The score of one observation; unscored with a reason where the metric does not apply."""


METRICS = Family("metrics", "tuneloop.evaluate.metrics", Metric)
