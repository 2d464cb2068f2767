"""Step `length`: drops rows that are too short or too long, counted in words or characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, model_validator

from tuneloop.core.conversation import Example
from tuneloop.data.steps import Rejected, Sieved, Step
from tuneloop.data.words import count_words, spoken


class Length(Step):
    """Drops rows outside the given lengths. Limits are inclusive; a Chinese character counts as one word.

    Tokens are another matter: a row that is too long for the model is reported by `tune`, which has the tokenizer.
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

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        for unit in ("words", "characters"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if high is not None and low > high:
                raise ValueError(f"min_{unit} ({low}) is larger than max_{unit} ({high}): no row could pass")
        return self

    def apply(self, examples: Sequence[Example]) -> Sieved:
        kept: list[Example] = []
        rejected: list[Rejected] = []
        for example in examples:
            problem = self._problem(self._texts(example))
            if problem is None:
                kept.append(example)
            else:
                rejected.append(Rejected(example, *problem))
        return Sieved(kept, rejected)

    def _texts(self, example: Example) -> list[str]:
        if self.of == "answer":
            return [spoken(example.answer)]
        return [spoken(message) for message in (example.prompt if self.of == "prompt" else example.messages)]

    def _problem(self, texts: list[str]) -> tuple[str, dict[str, object]] | None:
        limits = (
            ("words", sum(map(count_words, texts)), self.min_words, self.max_words),
            ("characters", sum(len(text.strip()) for text in texts), self.min_characters, self.max_characters),
        )
        for unit, length, low, high in limits:
            if length < low:
                return f"the {self.of} has fewer than {low} {unit}", {unit: length}
            if high is not None and length > high:
                return f"the {self.of} has more than {high} {unit}", {unit: length}
        return None
