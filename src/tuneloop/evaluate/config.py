"""The `evaluate` branch of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.evaluate.metrics import METRICS, Metric

Choice = Annotated[Metric, METRICS]
DEFAULT = ("exact_match", "f1", "perplexity")


class ProbeSet(Branch):
    """One ability: a file of questions or texts, and how answers are scored."""

    path: Literal["embedded"] | InputPath
    """`embedded`; a JSONL file: rows with `prompt` (prose) or `question` (chat) and `answer`, perhaps `choices`; or
    `messages`, or `text`; or a .txt file of passages with blank lines between them."""
    score: Literal["auto", "match", "choices", "text"] | Choice = "auto"
    """match: prose goes on with the answer, a chat answer names it; choices: the likeliest of `choices`; text: bits per
    byte; or a metric of `tuneloop list metrics`. auto: by what the rows have."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many, chosen by their digests; null takes `forgetting.limit`."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Length of an answer; null takes `forgetting.max_new_tokens`."""


class ForgettingConfig(Branch):
    """What the base can do, asked again after tuning."""

    probes: Literal["embedded"] | InputPath | dict[str, InputPath | ProbeSet] = "embedded"
    """`embedded` (the facts of the bundled base), a file as in `path` of a set, or several sets by name."""
    neutral: Literal["auto"] | InputPath | None = "auto"
    """Prompts and texts on which KL(tuned ‖ base) is measured: a file as in `path` of a set; auto takes those of the
    probes, at most 200; null leaves it out."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many probes of a set, chosen by their digests (a random but fixed choice); null takes all."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Length of a completion; enough for the longest answer."""

    @field_validator("probes")
    @classmethod
    def _some(cls, probes: str | dict[str, str | ProbeSet]) -> str | dict[str, str | ProbeSet]:
        if not probes:
            raise ValueError("no set of probes: give `embedded`, a file, or {name: file}; null for none at all")
        return probes

    @property
    def sets(self) -> dict[str, ProbeSet]:
        """The sets by name; a single one is called `facts`."""
        named = {"facts": self.probes} if isinstance(self.probes, str) else self.probes
        return {name: ProbeSet(path=one) if isinstance(one, str) else one for name, one in named.items()}

    @property
    def files(self) -> list[Path]:
        """The files whose bytes decide what is asked; those that are missing are left to whoever reads them."""
        paths = [*(one.path for one in self.sets.values()), self.neutral]
        named = [Path(path) for path in paths if path not in (None, "auto", "embedded")]
        return [path for path in named if path.is_file()]


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
