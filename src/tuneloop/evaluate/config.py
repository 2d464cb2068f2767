"""The `evaluate` branch of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.evaluate.metrics import METRICS, Metric
from tuneloop.evaluate.slices import Slice, Where
from tuneloop.generate.config import EndpointConfig

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


class GateConfig(Branch):
    """Non-inferiority: no metric of these may be worse than the reference by more than its margin."""

    worse_by: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(min_length=1)
    """Metric → the margin, in the metric's own unit: {exact_match: 0.02} allows two points of a hundred."""
    least: int = Field(default=100, ge=1)
    """Fewer shared examples than this are not enough evidence, whatever they show."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the two-sided interval whose worse end decides; 0.95 lets a drop of the margin pass in about 3 % of cases."""


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
    slices: tuple[Slice, ...] = ()
    """Parts of the examples for which the numbers are also given: columns (`kind+language` combines two), `label`,
    `language`, `length` and `source` without any column, and expressions: {name: long, where: words(prompt) > 50}."""
    gate: GateConfig | None = None
    """What `tuneloop compare` of these runs demands; its option --gate comes before it."""
    memorisation: bool = True
    """What answers repeat word for word of the training answers, against what references do."""
    forgetting: ForgettingConfig | None = None
    """What the tuned model has lost of what the base knew; null leaves it out."""
    against: EndpointConfig | None = None
    """A served model to compare the tuned one with; it is asked in the base's place."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, by name or as a YAML file, asked in addition; needs `tuneloop[lm-eval]`."""
    tasks_as_chat: bool = False
    """Whether their prompts are put into the model's chat template; the harness's own default is plain text."""
    cache: bool = True
    """Answers that the same model gave to the same prompt before are not asked again."""

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, metrics: list[Metric]) -> list[Metric]:
        names = [METRICS.name_of(metric) for metric in metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ValueError(f"'{twice[0]}' stands twice" if twice else "give at least one metric")
        return metrics

    @model_validator(mode="after")
    def _one_in_the_bases_place(self) -> Self:
        if self.against is not None and not self.base:
            raise ValueError(
                "`against` is asked in the base's place, and `base: false` asks none: leave one of them out"
            )
        if self.against is not None and self.forgetting is not None:
            raise ValueError(
                "`forgetting` needs the base, and `against` takes its place: evaluate twice, with one of them each"
            )
        return self

    @field_validator("slices")
    @classmethod
    def _once(cls, slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        names = [one.name if isinstance(one, Where) else one for one in slices]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' stands twice")
        return slices

    @field_validator("max_new_tokens")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("max_new_tokens must be at least 1")
        return value
