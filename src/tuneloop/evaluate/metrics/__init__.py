"""The family of metrics: a file is a metric. A metric scores one example; intervals and pages are made elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.core.plugins import Family, Plugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Json = dict[str, Any]
Better = Literal["higher", "lower", "neither"]
"""Which direction is good; `neither` of a length, say, where a change is worth knowing and neither good nor bad."""
Needs = Literal["generation", "likelihood", "choices", "samples"]
"""What a metric looks at: one answer, the likelihood of the reference, of each choice, or several sampled answers."""
Aggregation = Literal["proportion", "mean", "geometric", "corpus"]
"""How scores become one number: `proportion` of 0/1 scores (Wilson, McNemar), `mean` of scores (bootstrap),
`geometric` = the weighted geometric mean exp(Σ weight · ln value / Σ weight) (bootstrap over examples), `corpus` = the
metric's own `combine` of summed statistics, as BLEU's n-gram counts (bootstrap over examples)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answers of a metric that needs `samples` are drawn."""

    n: int
    temperature: float
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers that a multiple-choice question offers, with its likelihood after the prompt."""

    text: str
    nll: float
    """Negative log-likelihood of its tokens in nats."""
    tokens: float


@dataclass(frozen=True, slots=True)
class Observation:
    """What one model did with one example; what a metric does not need is left empty."""

    reference: str | None
    """The expected answer as text, None where the example has none (a tool call, an empty answer)."""
    text: str | None = None
    """The generated answer."""
    nll: float | None = None
    """Negative log-likelihood of the reference's tokens in nats, summed with their loss weights."""
    tokens: float | None = None
    """The sum of those weights: the number of supervised tokens in the usual case."""
    labels: tuple[str, ...] = ()
    """The distinct references of the whole set where they are few, as in classification; else empty."""
    expected: Message | None = None
    """The expected answer as a message, with its tool calls."""
    calls: tuple[ToolCall, ...] = ()
    """The tool calls of the generated answer where the engine gives them apart; else they stand in `text`."""
    choices: tuple[Choice, ...] = ()
    samples: tuple[str, ...] = ()
    """Sampled answers, as many as the metric's `sampling` asks for."""
    rival: str | None = None
    """The answer of the other model to the same prompt, where there is one."""
    prompt: tuple[Message, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The example's columns."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value for one example. `value` None means unscored, for the reason `why`: never the same as 0."""

    value: float | None
    why: str | None = None
    weight: float = 1.0
    statistics: tuple[float, ...] = ()
    """Of a `corpus` metric: what is summed over the examples, equally long for all."""


def missing(observation: Observation) -> str:
    """The reason of metrics on texts for leaving an observation without reference or answer unscored."""
    return "no reference text (a tool call or an empty answer)" if observation.reference is None else "no answer"


class Metric(Plugin):
    """Interface of the family: class facts, a signature, and the scoring of one observation."""

    BETTER: ClassVar[Better]
    NEEDS: ClassVar[Needs]
    AGGREGATION: ClassVar[Aggregation]
    BOUNDED: ClassVar[bool] = True
    """Whether values lie in [0, 1]."""
    REFERENCE: ClassVar[bool] = True
    """Whether it holds the answer against a reference text; without one the observation is unscored."""
    SLOW: ClassVar[bool] = False
    """Whether scoring takes long enough to show its progress (it asks another model)."""

    @property
    @abstractmethod
    def signature(self) -> str:
        """Everything that changes the number: normalisation, tokenisation, version. Unequal ones do not compare."""

    @abstractmethod
    def score(self, observation: Observation) -> Score:
        """The score of one observation; unscored with a reason where the metric does not apply."""

    def score_all(self, observations: Sequence[Observation], progress: Callable[[int], None]) -> list[Score]:
        """The scores of many, in order; a metric that waits for others (a judge) asks for several at a time."""
        found: list[Score] = []
        for observation in observations:
            found.append(self.score(observation))
            progress(1)
        return found

    def combine(self, sums_RS: Array) -> Array:
        """[R] numbers from R sums over examples of their S statistics; NaN where undefined. For `corpus` only."""
        raise NotImplementedError(f"{type(self).__name__} has no statistics to combine")

    def distance(self, sums_RS: Array, whole_1S: Array) -> Array | None:
        """[R] bounds of how far resampled numbers lie from the whole's, for `corpus` metrics that are so biased that a
        bootstrap of the number itself fails (a calibration error near 0). None: the usual bootstrap serves."""
        return None

    @property
    def sampling(self) -> Sampling | None:
        """The samples that it needs, of metrics with NEEDS = "samples"."""
        return None

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """What the report shows beside the number, e.g. a confusion matrix: {"kind": …, …}; None for nothing."""
        return None


METRICS = Family("metrics", "tuneloop.evaluate.metrics", Metric)
