"""Step `length`: drops rows that are too short or too long, counted in words, characters or a model's tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveInt, model_validator

from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.core.recipe import InputPath
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.texts.words import count_words, spoken

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNITS = ("words", "characters", "tokens")
_BEGINNING = 20
"""Characters in which there is mostly a word."""


class Length(RowStep):
    """Drops rows outside the given lengths. Limits are inclusive; a Chinese character counts as one word.

    Tokens are those of the texts alone, without the marks that a chat template adds; whether a whole row fits the model
    is checked by `tune`, which never cuts an answer in silence.
    """

    of: Literal["conversation", "prompt", "answer"] = "conversation"
    """What is measured: all messages, those before the last supervised one, or the last supervised one."""
    min_words: NonNegativeInt = 1
    """Fewest words; the default drops rows of punctuation alone."""
    max_words: PositiveInt | None = None
    """Most words."""
    min_characters: NonNegativeInt = 0
    """Fewest characters, surrounding whitespace not counted."""
    max_characters: PositiveInt | None = None
    """Most characters, surrounding whitespace not counted."""
    min_tokens: NonNegativeInt = 0
    """Fewest tokens of `tokenizer`."""
    max_tokens: PositiveInt | None = None
    """Most tokens of `tokenizer`."""
    tokenizer: InputPath | None = None
    """Folder of the model, with its tokenizer.json (`tuneloop bases` names it); needed to count tokens."""

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        for unit in UNITS:
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if high is not None and low > high:
                raise ValueError(f"min_{unit} ({low}) is larger than max_{unit} ({high}): no row could pass")
        counts_tokens = self.min_tokens > 0 or self.max_tokens is not None
        if counts_tokens and self.tokenizer is None:
            raise ValueError("min_tokens and max_tokens need `tokenizer`, the folder of the model that counts them")
        if self.tokenizer is not None and not counts_tokens:
            raise ValueError("`tokenizer` is only used with min_tokens or max_tokens")
        if not any(getattr(self, f"min_{unit}") or getattr(self, f"max_{unit}") for unit in UNITS):
            raise ValueError("no limit is set, so no row could leave; set one, or leave the step out")
        return self

    def files(self) -> list[str]:
        return [self.tokenizer] if self.tokenizer is not None else []

    def look_all(self, examples: Sequence[Example]) -> Sequence[Example | Rejection]:
        if [unit for unit, *_ in self._limits()] != ["words"]:
            return super().look_all(examples)
        from tuneloop.data import characters

        # where nothing is too long, the beginnings of most rows say that they are long enough
        end = _BEGINNING * (self.min_words + 1) if self.max_words is None else None
        words = characters.count_words(["\n".join(self._texts(example))[:end] for example in examples])
        most = words.max(initial=0) if self.max_words is None else self.max_words
        fits = ((words >= self.min_words) & (words <= most)).tolist()
        return [one if fit else self.look(one) for one, fit in zip(examples, fits, strict=True)]

    def look(self, example: Example) -> Example | Rejection:
        texts = self._texts(example)
        for unit, count, low, high in self._limits():
            length = sum(map(count, texts))
            if length < low:
                return Rejection(f"the {self.of} has fewer than {low} {unit}", {unit: length})
            if high is not None and length > high:
                return Rejection(f"the {self.of} has more than {high} {unit}", {unit: length})
        return example

    def _texts(self, example: Example) -> list[str]:
        if self.of == "answer":
            return [spoken(example.answer)]
        return [spoken(message) for message in (example.prompt if self.of == "prompt" else example.messages)]

    def _limits(self) -> Iterator[tuple[str, Callable[[str], int], int, int | None]]:
        if self.min_words or self.max_words is not None:
            yield "words", count_words, self.min_words, self.max_words
        if self.min_characters or self.max_characters is not None:
            yield "characters", _count_characters, self.min_characters, self.max_characters
        if self.tokenizer is not None:
            tokenizer = _tokenizer(self.tokenizer)
            yield (
                "tokens",
                lambda text: len(tokenizer.encode(text, add_special_tokens=False)),
                self.min_tokens,
                self.max_tokens,
            )


def _count_characters(text: str) -> int:
    return len(text.strip())


@cache
def _tokenizer(folder: str) -> Tokenizer:
    from tokenizers import Tokenizer

    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"{folder} has no tokenizer.json; name the folder of a model as `tokenizer` of the step length")
    tokenizer: Tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()  # some files cut at the model's length, which is what is to be measured
    tokenizer.no_padding()
    return tokenizer
