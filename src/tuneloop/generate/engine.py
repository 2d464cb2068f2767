"""The one interface for getting answers from a model, whatever runs it; knows nothing of examples or metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tuneloop.core.conversation import JsonObject, Message, ToolCall


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to be answered, or prose (messages of role `text`) to be completed."""

    messages: tuple[Message, ...]
    tools: tuple[JsonObject, ...] = ()
    seed: int = 0
    """Of sampling: the same request with another seed is another sample. Greedy answers do not depend on it."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen; the default is greedy."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 is greedy; else logits are divided by it."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability; 1 takes all."""
    top_k: int | None = None
    """Only so many likeliest tokens; None takes all."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `ids` end before the stop token (empty where a server gives none); `text` has no special tokens."""

    ids: tuple[int, ...]
    text: str
    finished: bool
    """Whether a stop token came; False: cut at the limit of new tokens or of the model's context."""
    refused: str | None = None
    """Why nothing was generated at all (an empty prompt, one that fills the whole context), else None."""
    calls: tuple[ToolCall, ...] = ()
    """Tool calls that the server took out of the text; an engine that gives text alone leaves them in it."""
    known: bool = field(default=False, compare=False)
    """Whether it is kept from an earlier asking, so that it says nothing of the engine's speed."""


Done = Callable[[int, Completion], None]
"""Called with the place of a request and its answer as soon as it is there, in any order."""


class Engine(Protocol):
    """Answers conversations."""

    @property
    def identity(self) -> str:
        """Digest of all that answers follow from beside request and decoding: weights, template, precision."""
        ...

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """One completion a request, in their order; what cannot be answered is refused with a reason."""
        ...
