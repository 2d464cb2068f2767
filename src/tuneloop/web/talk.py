"""What a page needs of a server: someone to talk to. Knows nothing of HTTP and of how answers are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tuneloop.core.conversation import Message

Reason = Literal["session", "role", "model", "busy", "closed", "late", "asked", "gone", "fault"]
"""Why something was not done; the pages have words for each (`words.py`)."""


class Denied(Exception):
    """Something was not done. `detail`, in English, tells more where it was the person's own doing ("asked")."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer is wanted."""

    model: str
    max_tokens: int
    temperature: float = 0.0
    """0 is greedy: the same question gets the same answer."""


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of an answer."""

    text: str
    answer_id: str
    """By which the answer is rated; the same in each piece."""
    cut: bool = False
    """Whether the answer ended at the limit of tokens."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says about an answer."""

    thumb: Literal[-1, 1]
    corrected: str = ""
    """The answer as it should have been."""
    comment: str = ""


class Talk(Protocol):
    """The server, for one visitor of a page."""

    @property
    def named(self) -> bool:
        """Whether the visitor came with a key, and so can log out."""
        ...

    @property
    def rates(self) -> bool:
        """Whether the visitor may rate answers."""
        ...

    @property
    def most_tokens(self) -> int:
        """The longest answer that can be asked for."""
        ...

    def models(self) -> Sequence[str]:
        """Names that can be asked; the first is the default."""
        ...

    def answer(self, messages: Sequence[Message], wish: Wish) -> AsyncIterator[Said]:
        """The answer as it comes. Closing the iterator gives it up. Raises Denied."""
        ...

    async def rate(self, answer_id: str, verdict: Verdict) -> None:
        """Keeps a verdict for good; a later one on the same answer takes its place. Raises Denied."""
        ...
