"""What the store keeps, as values: an answer, a vote, an API key. Knows nothing of tables.

Times have a zone and come back as UTC. A user is known by a keyed hash alone: `Store.pseudonym` makes it.
"""

from __future__ import annotations

import re
import secrets
import time as clock
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from tuneloop.core.conversation import JsonObject, Message, ToolCall
from tuneloop.core.errors import StoreError

Role = Literal["chat", "rate", "train", "approve", "watch", "admin"]
"""What a key allows: to ask, to vote, to start trainings, to release versions, to read a service's figures, to manage
keys and data. None implies another."""
ROLES: tuple[str, ...] = get_args(Role)
_PSEUDONYM = re.compile("u1-[0-9a-f]{32}")
_MOST_TAGS, _LONGEST_TAG = 20, 100


@dataclass(frozen=True, slots=True)
class Interaction:
    """One answer and all that it follows from."""

    id: str
    """Unique, as `records.new_id` makes it; public only when signed (`Store.sign`)."""
    time: datetime
    """When it was asked."""
    user: str
    """`Store.pseudonym` of whoever asked; a name is refused."""
    model: str
    """The name that was asked for."""
    prompt: tuple[Message, ...]
    answer: str
    finish: str
    """Why it ended, as `generate.live.Finish` or the API says it."""
    calls: tuple[ToolCall, ...] = ()
    tools: tuple[JsonObject, ...] = ()
    """The JSON schemas that came with the question; kept as they are, also where texts are masked."""
    version: str | None = None
    """Digest of base, adapter, template and precision (`generate.live.Served.digest`)."""
    adapter: str | None = None
    retrieval: str | None = None
    rules: str | None = None
    decoding: str | None = None
    """Digests: of the adapter, of what was retrieved, of the rules for answers, of how tokens were chosen."""
    first_ms: float | None = None
    total_ms: float | None = None
    """Milliseconds from the question to the first token and to the end."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    arm: str | None = None
    """The arm of an experiment."""
    redaction: str = ""
    """Which rules ran over the texts before they were written; the store says it."""

    def __post_init__(self) -> None:
        check_user(self.user)
        check_time(self.time)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one user says of one answer, as a whole: the next one of the same user takes its place."""

    answer: str
    """Id of the answer, as `Store.check` gives it."""
    user: str
    time: datetime
    thumb: int | None = None
    """1 up, -1 down, 0 taken back."""
    stars: int | None = None
    """1 to 5."""
    corrected: str | None = None
    """What should have been answered."""
    tags: tuple[str, ...] = ()
    comment: str | None = None
    redaction: str = ""

    def __post_init__(self) -> None:
        check_user(self.user)
        check_time(self.time)
        if self.thumb not in (None, -1, 0, 1):
            raise StoreError(f"a thumb is 1 (up), -1 (down) or 0 (taken back), not {self.thumb!r}")
        if self.stars is not None and self.stars not in range(1, 6):
            raise StoreError(f"stars are 1 to 5, not {self.stars!r}")
        if len(self.tags) > _MOST_TAGS or any(len(tag) > _LONGEST_TAG for tag in self.tags):
            raise StoreError(f"at most {_MOST_TAGS} tags of at most {_LONGEST_TAG} characters")
        if self.thumb is None and self.stars is None and not (self.corrected or self.tags or self.comment):
            raise StoreError("an empty vote: give a thumb, stars, a corrected answer, tags or a comment")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret part, which nobody keeps."""

    id: str
    name: str
    roles: tuple[Role, ...]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    used: datetime | None = None
    """When it was last good for a request; up to a minute late."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted of a user. Rows of an export name answers in `meta.answer`: that is how to find trainings."""

    answers: tuple[str, ...]
    votes: int
    """Of the user, and of others on the user's answers."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How much a store holds; `oldest` and `newest` are times of answers, None where there is none."""

    answers: int
    users: int
    votes: int
    keys: int
    entries: int
    """Of the audit log."""
    oldest: datetime | None
    newest: datetime | None


class UnknownAnswer(StoreError):
    """A vote for an answer that is not there: never recorded, deleted or expired."""


def new_id() -> str:
    """A new answer's id: 48 bits of time in ms, so that new ones are neighbours in the index, and 80 random bits."""
    return f"{clock.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def check_user(user: str) -> None:
    """Raises StoreError for anything but a pseudonym, so that no name is written by mistake."""
    if not _PSEUDONYM.fullmatch(user):
        raise StoreError("a user is known to the store by a keyed hash: pass Store.pseudonym(name)")


def check_time(time: datetime) -> None:
    """Raises StoreError for a time without zone."""
    if time.tzinfo is None:
        raise StoreError(f"{time.isoformat()} has no zone: use datetime.now(UTC)")
