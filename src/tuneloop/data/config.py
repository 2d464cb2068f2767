"""The recipe's branch `data`: which files, which steps, which split."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuneloop.core.conversation import Role
from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath
from tuneloop.data.formats import FORMATS, Format
from tuneloop.data.mix import MixConfig, check_mix
from tuneloop.data.reading.place import HUB
from tuneloop.data.steps import STEPS, Step

_INPUT_PATH = TypeAdapter(InputPath)


def _find_source(value: str, info: ValidationInfo) -> str:
    """As InputPath; a part (`book.xlsx#Sheet2`) is no part of the path, and a hub data set is no path."""
    if value.startswith(HUB):
        return value
    bare = value
    while True:  # a '#' may also belong to the name
        found = _INPUT_PATH.validate_python(bare, context=info.context)
        if Path(found).exists() or "#" not in bare:
            return found + value[len(bare) :]
        bare = bare.rpartition("#")[0]


class TemplateMessage(Branch):
    """One turn of the conversation that a template writes."""

    role: Role
    """system, user, assistant, tool or text."""
    content: str
    """Jinja text over the row's columns, e.g. "Age: {{ age }}, symptoms: {{ symptoms | join(', ') }}"."""
    train: float | None = Field(default=None, ge=0)
    """Loss weight of the turn; by default 1 for assistant (and 0 for all others)."""


class SourceConfig(Branch):
    """One source of raw data."""

    path: Annotated[str, AfterValidator(_find_source)]
    """A .jsonl, .json, .csv, .tsv, .txt, .parquet, .arrow, .xlsx, .xls, .ods or .zip file; a folder of shards, or one
    that `datasets` saved; a data set of the hub, as hf:org/name?config=main#train. A part of it is named behind a #:
    book.xlsx#Sheet2, folder#train, data.json#rows, dataset_info.json#name1,name2 (LLaMA-Factory's list)."""
    format: Annotated[Format, FORMATS] = Field(default_factory=lambda: FORMATS.make("auto"))
    """How the rows become conversations; `auto` recognises the format; `tuneloop list formats` lists them."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Role: column, e.g. {prompt: question, response: answer, label: topic}. Roles that the format does not know become
    meta. Naming `prompt` or `response` under `format: auto` means `format: table`."""
    template: dict[str, str] | list[TemplateMessage] = Field(default_factory=dict)
    """Role: Jinja text over the row's columns, e.g. {prompt: "Review: {{ sentence }}", response: "{{ {'0': 'negative',
    '1': 'positive'}[label] }}"}; or the turns of a conversation, e.g. [{role: user, content: "Age: {{ age }}"}, {role:
    assistant, content: "{{ answer }}"}]. CSV and TSV values are text. A column with an odd name is `row["odd name"]`.
    A column that a row does not have is an error."""
    encoding: str = "auto"
    """auto (UTF-8, GB18030, Big5, decided on the whole file) or the name of an encoding."""
    limit: PositiveInt | None = None
    """Use only the first so many rows."""
    sample: PositiveInt | None = None
    """Use only so many rows, chosen at random by the recipe's seed."""
    train_only: bool = False
    """All its rows are trained on, none goes to val or test: general rows to replay, generated rows. Rows of other
    sources that belong together with one of them (equal prompts, near-duplicates, parents) go to train with it."""
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

    @field_validator("template", mode="before")
    @classmethod
    def _explained(cls, value: Any) -> Any:
        """Which message of a template is wrong, in words: errors of a union's branches would hide it."""
        for number, message in enumerate(value) if isinstance(value, list) else ():
            try:
                TemplateMessage.model_validate(message)
            except ValidationError as error:
                raise ValueError(
                    f"message {number}: {'; '.join(map(_told, error.errors(include_url=False)))}"
                ) from None
        return value

    @field_validator("template")
    @classmethod
    def _valid_template(cls, value: dict[str, str] | list[TemplateMessage]) -> dict[str, str] | list[TemplateMessage]:
        if value:
            from jinja2 import TemplateError

            from tuneloop.data.layout import sandbox

            texts = value if isinstance(value, dict) else {
                f"message {number}": message.content for number, message in enumerate(value)
            }  # fmt: skip
            for role, text in texts.items():
                try:
                    sandbox().from_string(text)
                except TemplateError as error:
                    raise ValueError(f"the template for '{role}' is not valid Jinja: {error.message}") from None
        if isinstance(value, list) and not any(_is_trained(message) for message in value):
            raise ValueError("no message of the template is trained on; one must have the role assistant")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limit is not None and self.sample is not None:
            raise ValueError("give limit (the first rows) or sample (random rows), not both")
        if isinstance(self.template, list):
            if FORMATS.name_of(self.format) not in ("auto", "messages"):
                raise ValueError("a template that is a list of messages goes with `format: messages` (or auto)")
            both = sorted(self.columns.keys() & {"messages"})
        else:
            both = sorted(self.columns.keys() & self.template.keys())
        if both:
            raise ValueError(f"{', '.join(both)}: named in columns and in template; keep one of the two")
        return self


def _told(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; known: {', '.join(TemplateMessage.model_fields)}"
    return ": ".join(filter(None, [key, problem["msg"]]))


def _is_trained(message: TemplateMessage) -> bool:
    return message.train > 0 if message.train is not None else message.role == "assistant"


class SplitConfig(Branch):
    """Shares of the sources that are not `train_only`. Rows that belong together (near-duplicates, equal prompts, rows
    made from one another) are placed as one, by the hash of the first one's prompt: the shares hold on average, also
    within each label, language and length, and a row stays where it is when others are added. No share is used where
    an own file is given."""

    train: float = Field(default=0.8, gt=0, le=1)
    """Share to train on; it also gets the share of val or test where these have files of their own."""
    val: float = Field(default=0.1, ge=0, lt=1)
    """Share to watch during training (early stopping, best checkpoint)."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share to evaluate on at the end."""
    together: Literal["near", "equal"] = "near"
    """What never straddles train, val and test beside equal prompts: near-duplicates too, or nothing else (faster)."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train {self.train} + val {self.val} + test {self.test} = {total:g}, must be 1")
        return self


class AuditConfig(Branch):
    """What the data card looks at beside what it always does."""

    encoder: InputPath | None = None
    """The folder of a sentence encoder, as sentence-transformers writes it: clusters the instructions by meaning."""


class DataConfig(Branch):
    """From raw files to train, val and test."""

    sources: list[SourceConfig] = Field(min_length=1)
    """The files to train on (and to split)."""
    steps: list[Annotated[Step, STEPS]] = Field(default_factory=list)
    """Checks and repairs of the sources, in this order; `tuneloop list steps` lists them. Own val and test files are
    left as they are. Rows without an answer are always dropped."""
    split: SplitConfig = SplitConfig()
    """How the sources are divided."""
    mix: MixConfig = MixConfig()
    """What an epoch of training is made of; by default every row once."""
    val: list[SourceConfig] | None = None
    """Files to watch during training, instead of a share of the sources."""
    test: list[SourceConfig] | None = None
    """Files to evaluate on, instead of a share of the sources. What also stands in them leaves the training rows."""

    audit: AuditConfig = AuditConfig()
    """The data card."""
    waive: dict[str, Annotated[str, Field(min_length=3)]] = Field(default_factory=dict)
    """ERROR findings of the card under which training goes on: code: the reason, which is kept on record."""

    @model_validator(mode="after")
    def _mix_names_sources(self) -> Self:
        check_mix(self.mix, {source.label: source.path for source in self.sources})
        return self

    @model_validator(mode="after")
    def _something_to_divide(self) -> Self:
        shares = {"val": self.split.val, "test": self.split.test}
        wanted = [name for name, share in shares.items() if share and getattr(self, name) is None]
        if wanted and all(source.train_only for source in self.sources):
            raise ValueError(
                f"every source is train_only, so no row is left for {' and '.join(wanted)}: give data.{wanted[0]} "
                f"a file of its own, or set split: {{train: 1, val: 0, test: 0}}"
            )
        return self

    @field_validator("val", "test")
    @classmethod
    def _some(cls, value: list[SourceConfig] | None) -> list[SourceConfig] | None:
        if value == []:
            raise ValueError("an empty list; leave the key out, or set split.val / split.test to 0 for none")
        if value and any(source.train_only for source in value):
            raise ValueError("train_only is for sources; a file named here is not trained on")
        return value
