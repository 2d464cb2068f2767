"""What the pipeline hands to the audit: small columns of all rows, a sample of whole rows, and the ledger's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tuneloop.core.conversation import Example, JsonObject

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

SPLITS = ("train", "val", "test")
SAMPLE = 20_000
"""Rows in `Facts.sample` at most; where fewer are kept, the sample is all of them."""


@dataclass(frozen=True)
class SourceFacts:
    """One file of the recipe (own val and test files included), as it was read."""

    name: str
    path: str
    """As in the rows' origins; a file that the recipe names twice has two of these."""
    format: str
    confidence: float | None
    """How sure `format: auto` was; None where the recipe names the format."""
    encoding: str | None
    """None for files that are no text, such as Parquet."""
    rows: int
    """Rows read: kept + dropped."""
    available: int
    """Rows of the file, before `limit` and `sample`."""
    notes: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the format decided on the way, with the number of rows."""
    goes_to: Literal["any", "train", "val", "test"] = "any"
    """The split of all its rows, or any where they are divided."""


@dataclass(frozen=True)
class Forecast:
    """What a sample of rows costs in tokens: one entry a row in `tokens` and `supervised`."""

    tokens: np.ndarray
    """Tokens of the whole row, nothing cut."""
    supervised: np.ndarray
    """Those of them that carry loss, nothing cut."""
    max_length: int
    tokenizer: str


@dataclass(frozen=True)
class Meaning:
    """A sentence encoder, for questions about meaning."""

    name: str
    encode: Callable[[Sequence[str]], np.ndarray]
    """Texts → float32 [N, D], each of length 1."""


@dataclass(frozen=True)
class Facts:
    """All that the card is made from."""

    sources: Sequence[SourceFacts]
    table: pl.DataFrame
    """One line a kept row: split, source (path), row u32, id, language, prompt_words i32, answer_words i32, label,
    cluster i64, repaired bool. With a column `prompt` (u64, equal for equal normalised prompts) the leak check covers
    all rows instead of the sample."""
    sample: Sequence[tuple[str, Example]]
    """(split, Example): all kept rows, or SAMPLE of them chosen by hash."""
    dropped: Counter[tuple[str, str, str]]
    """(source's path, step, reason): rows."""
    rows_in: int
    findings: Sequence[JsonObject]
    """Of the steps."""
    shares: Mapping[str, float]
    """The share asked for of each split; 1 where it has files of its own."""
    steps: Sequence[tuple[str, JsonObject]] = ()
    """The steps that went over the sources, in their order: (name, options). A check that is not here did not run."""
    meaning: Meaning | None = None
    """None where the recipe names no encoder."""
    forecast: Forecast | None = None
    """None where no model was named."""

    def options_of(self, step: str) -> list[JsonObject]:
        """The options of each time that the step ran; empty where it did not."""
        return [options for name, options in self.steps if name == step]


Measure = Callable[[Sequence[Example]], "Forecast | None"]
"""Counts the tokens of some Examples, for a stage that knows no models."""
