"""The recipe's branch `data`: which files, which steps, which split."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.data.formats import FORMATS, Format
from tuneloop.data.steps import STEPS, Step


class SourceConfig(Branch):
    """One file of raw data."""

    path: InputPath
    """A .jsonl, .json, .csv, .tsv, .parquet or .txt file."""
    format: Annotated[Format, FORMATS] = Field(default_factory=lambda: FORMATS.make("auto"))
    """How the rows become conversations; `auto` recognises the format; `tuneloop list formats` lists them."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Role: column, e.g. {prompt: question, response: answer, label: topic}. Roles that the format does not know become
    meta. Naming `prompt` or `response` under `format: auto` means `format: table`."""
    template: dict[str, str] = Field(default_factory=dict)
    """Role: Jinja text over the row's columns, e.g. {prompt: "Review: {{ sentence }}", response: "{{ {'0': 'negative',
    '1': 'positive'}[label] }}"}. CSV and TSV values are text. A column with an odd name is `row["odd name"]`."""
    encoding: str = "auto"
    """auto (UTF-8, GB18030, Big5, decided on the whole file) or the name of an encoding."""
    limit: PositiveInt | None = None
    """Use only the first so many rows."""
    sample: PositiveInt | None = None
    """Use only so many rows, chosen at random by the recipe's seed."""
    name: str | None = None
    """What reports call this source; the path if not given."""

    @property
    def label(self) -> str:
        return self.name or self.path

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        if value != "auto":
            try:
                codecs.lookup(value)
            except LookupError:
                raise ValueError("no such encoding; try auto, utf-8, gb18030, big5 or cp1252") from None
        return value

    @field_validator("template")
    @classmethod
    def _valid_template(cls, value: dict[str, str]) -> dict[str, str]:
        if value:
            from jinja2 import TemplateSyntaxError

            from tuneloop.data.layout import sandbox

            for role, text in value.items():
                try:
                    sandbox().from_string(text)
                except TemplateSyntaxError as error:
                    raise ValueError(f"the template for '{role}' is not valid Jinja: {error.message}") from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limit is not None and self.sample is not None:
            raise ValueError("give limit (the first rows) or sample (random rows), not both")
        both = sorted(self.columns.keys() & self.template.keys())
        if both:
            raise ValueError(f"{', '.join(both)}: named in columns and in template; keep one of the two")
        return self


class SplitConfig(Branch):
    """Shares of the sources. Each row is placed by the hash of its prompt, so the shares hold on average, equal prompts
    stay together, and a row never moves when others are added. A share is not used where an own file is given."""

    train: float = Field(default=0.8, gt=0, le=1)
    """Share to train on; it also gets the share of val or test where these have files of their own."""
    val: float = Field(default=0.1, ge=0, lt=1)
    """Share to watch during training (early stopping, best checkpoint)."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share to evaluate on at the end."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train {self.train} + val {self.val} + test {self.test} = {total:g}, must be 1")
        return self


class DataConfig(Branch):
    """From raw files to train, val and test."""

    sources: list[SourceConfig] = Field(min_length=1)
    """The files to train on (and to split)."""
    steps: list[Annotated[Step, STEPS]] = Field(default_factory=list)
    """Checks and repairs of the sources, in this order; `tuneloop list steps` lists them. Own val and test files are
    left as they are. Rows without an answer are always dropped."""
    split: SplitConfig = SplitConfig()
    """How the sources are divided."""
    val: list[SourceConfig] | None = None
    """Files to watch during training, instead of a share of the sources."""
    test: list[SourceConfig] | None = None
    """Files to evaluate on, instead of a share of the sources. What also stands in them leaves the training rows."""

    @field_validator("val", "test")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("an empty list; leave the key out, or set split.val / split.test to 0 for none")
        return value
