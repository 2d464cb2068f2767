"""What the pages need of a server: someone to talk to. Knows nothing of HTTP and of how answers are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tuneloop.core.conversation import Message


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer is wanted."""

    model: str
    max_tokens: int = 512
    temperature: float = 0.0
    """0 is greedy: the same question gets the same answer."""


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of an answer. The last one has `answer_id`, with which the answer is rated, or `why` it failed."""

    text: str
    answer_id: str | None = None
    why: str | None = None
    cut: bool = False
    """Whether the answer ended at the limit of tokens."""


class Talk(Protocol):
    """The server behind the pages. `user` is what `login` gave, or the session's own id where no key is asked for."""

    @property
    def open(self) -> bool:
        """Whether people may talk without a key (on the loopback interface, as long as no key exists)."""
        ...

    def login(self, key: str) -> str | None:
        """The user behind a key that may chat; None for any other."""
        ...

    def models(self) -> Sequence[str]:
        """Names that can be asked; the first is the default."""
        ...

    def answer(self, user: str, messages: Sequence[Message], wish: Wish) -> AsyncIterator[Said]:
        """The answer as it comes. Closing the iterator gives it up."""
        ...

    async def rate(self, user: str, answer_id: str, thumb: int | None, corrected: str | None, comment: str) -> None:
        """Keeps a vote: thumb 1 or -1, a better answer, a comment; a later one of the same user replaces it."""
        ...
