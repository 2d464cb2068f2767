"""An answer at work in the live engine, and how it is given up. Knows nothing of models."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tuneloop.generate.constraint import Constraint
from tuneloop.generate.live import Ask, Finish, Piece, TokenLogprob
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

    def cancel(self) -> None:
        """As Ticket.cancel."""
        self.cancelled = True
        self.wake()

    def over(self, now: float) -> Finish | None:
        """Why it is given up, if it is."""
        return "cancelled" if self.cancelled else "timeout" if now > self.deadline else None
