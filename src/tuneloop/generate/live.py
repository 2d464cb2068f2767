"""The interface for answering many people at once, token by token; knows nothing of HTTP, users or stores.

A live engine owns its model in one worker thread: whoever asks puts an `Ask` into its queue from any thread and gets
pieces of the answer by callback, from that worker. Adapter state is global in PEFT, so nobody else touches the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tuneloop.core.errors import TuneloopError
from tuneloop.generate.engine import Decoding, Request

Finish = Literal["stop", "length", "cancelled", "timeout", "refused", "error"]
"""Why an answer ended: a stop token or stop text; the limit of tokens or context; the client; the clock; a prompt that
cannot be answered (the asker's trouble); a fault (ours)."""


class Busy(TuneloopError):
    """The queue is full; `retry_after` says in how many seconds there will be room."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted."""

    request: Request
    decoding: Decoding
    model: str
    """Name of a served model: the base's, or that of an adapter as `load` was given it."""
    user: str = ""
    """Whose turn it is in the fair queue (any stable key; the engine does not look into it)."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""
    logprobs: int | None = None
    """How many likeliest tokens are told beside each token's own log-probability; None tells none at all."""
    schema: Mapping[str, Any] | None = None
    """A JSON Schema that the answer must follow; {} is any JSON object."""
    timeout: float | None = None
    """Seconds until it is given up, waiting included."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its log-probability in nats and the likeliest others at its place."""

    text: str
    bytes: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of an answer; `cached` of the prompt's did not have to be computed."""

    prompt: int
    cached: int
    completion: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more of an answer. The last piece, and only it, has `finish` and `usage`."""

    text: str
    """New text; whole characters only, and never the beginning of a stop text. Of special tokens it has those alone
    that mark tool calls, and only where the request has tools: whoever asked reads the calls out of it."""
    reasoning: str = ""
    """New text of what the model thinks before it answers, where its template tells that apart."""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    why: str | None = None
    """What was wrong, with finish "refused" (told to the asker) or "error" (told to the operator alone)."""


class Ticket(Protocol):
    """An answer under way."""

    def cancel(self) -> None:
        """Gives it up: its place is free after the current step, and a last piece says `cancelled`."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can be asked."""

    name: str
    digest: str
    """Of base, adapter, template and precision: what the answers follow from."""
    context: int | None
    """Tokens of prompt and answer together; None where the model has no limit."""
    adapter: str | None = None
    """Digest of its adapter; None for the base itself."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is doing just now, for metrics and health."""

    running: int
    waiting: int
    tokens: int
    """Generated since the start."""
    fault: str | None = None
    """Why the worker is dead and nothing will be answered any more; None while it lives."""


class LiveEngine(Protocol):
    """Answers under continuous batching."""

    def submit(self, ask: Ask, told: Callable[[Piece], None]) -> Ticket:
        """Queues an answer and returns at once (an event loop calls it: no rendering, no waiting in here).

        `told` gets its pieces from the worker and must not block. Raises Busy, or ModelError for a model that is not
        there; a prompt that cannot be answered comes as a piece with finish "refused".
        """
        ...

    def models(self) -> Sequence[Served]:
        """What can be asked now."""
        ...

    def load(self, name: str, adapter: str) -> Served:
        """Adds an adapter (a folder or run that the operator named, never a client) under a new name; others go on."""
        ...

    def unload(self, name: str) -> None:
        """Takes no more for a name, lets its answers end, and frees it. Returns when it is gone."""
        ...

    def now(self) -> Load:
        """Cheap: asked at every scrape."""
        ...

    def close(self) -> None:
        """Ends the worker; what is under way is cancelled."""
        ...
