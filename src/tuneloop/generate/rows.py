"""An answer at work in a live engine: from prompt to pieces, token by token. Knows nothing of models."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from tuneloop.generate.constraint import Constraint
from tuneloop.generate.guesses import Guesses
from tuneloop.generate.live import Ask, Finish, Piece, TokenLogprob, Usage
from tuneloop.generate.spoken import Spoken


@dataclass(eq=False)
class Row:
    """One answer; also the ticket of whoever asked. What follows `deadline` is known once its turn comes."""

    ask: Ask
    told: Callable[[Piece], None]
    wake: Callable[[], None]
    deadline: float
    prompt: list[int] = field(default_factory=list[int])
    room: int = 0
    spoken: Spoken | None = None
    constraint: Constraint | None = None
    random: random.Random | None = None
    new: list[int] = field(default_factory=list[int])
    cached: int = 0
    cancelled: bool = False
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    trouble: str | None = None
    """Why its schema cannot be followed to the end."""

    @cached_property
    def guesses(self) -> Guesses:
        """At what comes next; asked for once the prompt is known."""
        return Guesses(self.prompt)

    def cancel(self) -> None:
        """As Ticket.cancel."""
        self.cancelled = True
        self.wake()

    def over(self, now: float) -> Finish | None:
        """Why it is given up, if it is."""
        return "cancelled" if self.cancelled else "timeout" if now > self.deadline else None

    def take(self, token: int, stop_ids: frozenset[int]) -> Finish | None:
        """The next token: what may be said because of it is told. Returns why the answer ends with it, if it does."""
        ends = token in stop_ids
        if self.constraint is not None:
            if not ends:
                self.constraint.take(token)
            self.trouble = self.constraint.trouble
            if self.trouble is not None:
                return "refused"
        if ends:
            return "stop"
        self.new.append(token)
        assert self.spoken is not None
        reasoning, text = self.spoken.add(token)
        if text or reasoning or self.logprobs:
            self.told(Piece(text, reasoning, self._spend()))
        if self.spoken.stopped or (self.constraint is not None and self.constraint.ended):
            return "stop"
        return "length" if len(self.new) >= self.room else None

    def end(self, finish: Finish, why: str | None = None) -> None:
        """Tells the last piece."""
        whole = finish in ("stop", "length") and self.spoken is not None
        reasoning, text = self.spoken.end() if whole and self.spoken is not None else ("", "")
        usage = Usage(len(self.prompt), self.cached, len(self.new))
        self.told(Piece(text, reasoning, self._spend(), finish, usage, why or self.trouble))

    def _spend(self) -> tuple[TokenLogprob, ...]:
        found, self.logprobs = tuple(self.logprobs), []
        return found
