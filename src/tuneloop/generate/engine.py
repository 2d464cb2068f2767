"""The one interface for getting answers from a model, whatever runs it; knows nothing of examples or metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

Progress = Callable[[int], None]
"""Called with the number of prompts answered since the last call."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `ids` end before the stop token; `text` is `ids` without special tokens."""

    ids: tuple[int, ...]
    text: str
    finished: bool
    """Whether a stop token came; False: cut at the limit of new tokens or of the model's context."""
    refused: str | None = None
    """Why nothing was generated at all (an empty prompt, one that fills the whole context), else None."""


class Engine(Protocol):
    """Greedy completion of token prompts."""

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: Collection[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One completion a prompt, in the order of the prompts."""
        ...
