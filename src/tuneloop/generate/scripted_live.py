"""A LiveEngine whose answers are written by hand, for tests: no model, and time stands still when a test says so."""

from __future__ import annotations

import math
from collections.abc import Callable

from tuneloop.generate.live import Ask, Piece, Served, Ticket
from tuneloop.generate.whole import WholeAnswers


class ScriptedLive(WholeAnswers):
    """Answers by a function of the ask; tokens are words and signs. `pause` holds the worker between two tokens."""

    def __init__(
        self, answer: Callable[[Ask], str], name: str = "scripted", *, places: int = 4, queue: int = 64
    ) -> None:
        self.asked: list[Ask] = []
        """All asks so far, the refused ones too."""
        self.cancelled: list[Ask] = []
        """Those that were given up by their askers."""
        self._until = math.inf
        super().__init__(answer, Served(name, "sha256:5c7197ed", None), places=places, queue=queue, adapters=True)

    def submit(self, ask: Ask, told: Callable[[Piece], None]) -> Ticket:
        """As LiveEngine.submit."""

        def noted(piece: Piece) -> None:
            if piece.finish == "cancelled":
                self.cancelled.append(ask)
            told(piece)

        self.asked.append(ask)
        return super().submit(ask, noted)

    def pause(self, after: int = 0) -> None:
        """Nothing more than so many tokens is answered until `resume`."""
        with self._changed:
            self._until = self._tokens + after

    def resume(self) -> None:
        """Goes on."""
        with self._changed:
            self._until = math.inf
            self._changed.notify_all()

    def _held(self) -> bool:
        return self._tokens >= self._until
