"""The `evaluate` branch of the recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.evaluate.metrics import METRICS, Metric

Choice = Annotated[Metric, METRICS]
DEFAULT = ("exact_match", "f1", "perplexity")


class ForgettingConfig(Branch):
    """Prose that the base completes right; asked again after tuning."""

    probes: Literal["embedded"] | InputPath = "embedded"
    """`embedded` (the facts of the bundled base) or a JSONL file: Examples, or rows with `prompt` and `answer`."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many probes, chosen by their digests (a random but fixed choice); null takes all."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Length of a completion; enough for the longest answer."""


class EvaluateConfig(Branch):
    """Which numbers are measured, on which examples."""

    metrics: list[Choice] = Field(
        default_factory=lambda: [METRICS.make(n) for n in ("exact_match", "f1", "perplexity")]
    )
    """Metrics of `tuneloop list metrics`, each by name or with its options."""
    split: Literal["test", "val"] = "test"
    """The held-out part that is asked. `val` has already chosen the checkpoint, so its numbers flatter."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many examples, chosen by their digests (a random but fixed choice); null takes all."""
    max_new_tokens: int | Literal["auto"] = "auto"
    """Length of an answer; auto = twice the longest reference plus 8. Answers cut there are counted in the report."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of all intervals."""
    base: bool = True
    """Also ask the model as it was before tuning, on the same examples."""
    slices: tuple[str, ...] = ()
    """Columns (`meta` keys) by whose values the numbers are also given; `kind+language` combines two."""
    memorisation: bool = True
    """What answers repeat word for word of the training answers, against what references do."""
    forgetting: ForgettingConfig | None = None
    """What the tuned model has lost of what the base knew; null leaves it out."""

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, metrics: list[Metric]) -> list[Metric]:
        names = [METRICS.name_of(metric) for metric in metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ValueError(f"'{twice[0]}' stands twice" if twice else "give at least one metric")
        return metrics

    @field_validator("max_new_tokens")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("max_new_tokens must be at least 1")
        return value
