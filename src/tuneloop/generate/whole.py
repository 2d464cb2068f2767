"""A LiveEngine around a function that gives whole answers: for engines that cannot batch or stream by themselves.

One worker thread computes answers in a fair order and tells them token by token. Knows nothing of models or HTTP.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneloop.core.errors import ModelError, TuneloopError
from tuneloop.generate.live import Ask, Busy, Finish, Load, Piece, Served, Ticket, TokenLogprob, Usage
from tuneloop.generate.queue import FairQueue
from tuneloop.models.cache import adapter_digest

TOKEN = re.compile(r"\s*(?:[A-Za-z0-9_]+|\S)|\s+")
"""What counts as a token here: a word with the space before it, or any other character."""


@dataclass(eq=False)
class _Answer:
    """An answer that waits or is being told; the ticket that its asker holds."""

    ask: Ask
    told: Callable[[Piece], None]
    wake: Callable[[], None]
    asked: float
    cancelled: bool = False
    tokens: deque[str] = field(default_factory=deque[str])
    finish: Finish = "stop"
    prompt: int = 0
    given: int = 0

    def cancel(self) -> None:
        self.cancelled = True
        self.wake()

    @property
    def left(self) -> float | None:
        """Seconds until it is given up."""
        return None if self.ask.timeout is None else self.asked + self.ask.timeout - time.monotonic()

    @property
    def given_up(self) -> Finish | None:
        if self.cancelled:
            return "cancelled"
        return "timeout" if self.left is not None and self.left <= 0 else None


class WholeAnswers:
    """Answers by `answer(ask)`, called by the worker; a ModelError of it refuses the prompt, others are faults.

    At most `places` answers are told at once and `queue` wait; askers take turns (`Ask.user`). `adapters`: whether
    `answer` tells models apart, so that more can be loaded.
    """

    def __init__(
        self,
        answer: Callable[[Ask], str],
        base: Served,
        *,
        places: int = 4,
        queue: int = 64,
        adapters: bool = False,
    ) -> None:
        self._answer, self._places, self._queue, self._adapters = answer, places, queue, adapters
        self._models = {base.name: base}
        self._closing: set[str] = set()
        self._waiting: FairQueue[_Answer] = FairQueue()
        self._running: list[_Answer] = []
        self._tokens, self._closed = 0, False
        self._fault: str | None = None
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="answers", daemon=True)
        self._worker.start()

    # -- asking -------------------------------------------------------------------------------------------------------
    def submit(self, ask: Ask, told: Callable[[Piece], None]) -> Ticket:
        """As LiveEngine.submit."""
        with self._changed:
            if ask.model not in self._models or ask.model in self._closing:
                raise ModelError(f"no model '{ask.model}' is loaded; loaded: {', '.join(self._models)}")
            if self._closed or self._fault:
                raise ModelError("the engine is closed")
            if len(self._waiting) >= self._queue:
                raise Busy(f"{len(self._waiting)} answers are waiting already", retry_after=1.0)
            answer = _Answer(ask, told, self._wake, time.monotonic())
            self._waiting.put(ask.user, answer)
            self._changed.notify_all()
        return answer

    def models(self) -> Sequence[Served]:
        """As LiveEngine.models."""
        with self._changed:
            return tuple(served for name, served in self._models.items() if name not in self._closing)

    def load(self, name: str, adapter: str) -> Served:
        """As LiveEngine.load; the adapter's digest is told, its weights are the answering function's affair."""
        if not self._adapters:
            raise ModelError(f"adapter {adapter}: this engine serves one model alone")
        found = adapter_digest(Path(adapter))
        served = Served(name, found, None, found)
        with self._changed:
            if name in self._models:
                raise ModelError(f"'{name}' is loaded already")
            self._models[name] = served
        return served

    def unload(self, name: str) -> None:
        """As LiveEngine.unload."""
        with self._changed:
            if name not in self._models:
                raise ModelError(f"no model '{name}' is loaded")
            self._closing.add(name)
            self._changed.wait_for(lambda: not any(answer.ask.model == name for answer in self._under_way()))
            self._closing.discard(name)
            del self._models[name]

    def now(self) -> Load:
        """As LiveEngine.now."""
        with self._changed:
            return Load(len(self._running), len(self._waiting), self._tokens, self._fault)

    def close(self) -> None:
        """As LiveEngine.close."""
        with self._changed:
            self._closed = True
            for answer in self._under_way():
                answer.cancel()
            self._changed.notify_all()
        self._worker.join()

    # -- the worker ---------------------------------------------------------------------------------------------------
    def _under_way(self) -> list[_Answer]:
        return [*self._running, *self._waiting]

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _held(self) -> bool:
        """Whether nothing may be answered just now."""
        return False

    def _due(self) -> bool:
        under_way = self._under_way()
        return self._closed or any(a.given_up for a in under_way) or (bool(under_way) and not self._held())

    def _work(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
            with self._changed:
                self._fault = f"{type(error).__name__}: {error}"
                for answer in self._under_way():
                    answer.told(Piece("", finish="error", usage=Usage(0, 0, 0), why=self._fault))
                self._running, self._waiting = [], FairQueue()
                self._changed.notify_all()

    def _step(self) -> bool:
        """One token of each running answer; False when all is over."""
        with self._changed:
            while not self._due():
                self._changed.wait(min((a.left for a in self._under_way() if a.left is not None), default=None))
            if self._closed and not self._under_way():
                return False
            held = self._held()
            over = self._waiting.take_out(lambda answer: answer.given_up is not None)
            begun = [] if held else self._admit()
            running = [answer for answer in self._running if answer.given_up or not held]
        for answer in begun:  # outside the lock: it may take long, and others may ask meanwhile
            self._begin(answer)
        over = [answer for answer in [*over, *running] if self._tell(answer)]
        with self._changed:
            self._running = [answer for answer in self._running if answer not in over]
            self._changed.notify_all()
        return True

    def _admit(self) -> list[_Answer]:
        """The next askers' turn."""
        begun: list[_Answer] = []
        while len(self._waiting) and len(self._running) < self._places:
            begun.append(self._waiting.pop())
            self._running.append(begun[-1])
        return begun

    def _begin(self, answer: _Answer) -> None:
        if answer.given_up:
            return
        ask = answer.ask
        answer.prompt = sum(len(TOKEN.findall(message.content)) for message in ask.request.messages)
        try:
            text = self._answer(ask)
        except TuneloopError as error:
            answer.told(Piece("", finish="refused", usage=Usage(answer.prompt, 0, 0), why=str(error)))
            answer.finish = "refused"
            return
        places = [place for place in (text.find(stop) for stop in ask.stop) if place >= 0]
        tokens = TOKEN.findall(text[: min(places)] if places else text)
        limit = ask.decoding.max_new_tokens
        answer.tokens, answer.finish = deque(tokens[:limit]), "length" if len(tokens) > limit else "stop"

    def _tell(self, answer: _Answer) -> bool:
        """Tells the next token; whether that was the last of it."""
        if answer.finish == "refused":
            return True
        finish = answer.given_up
        token = answer.tokens.popleft() if answer.tokens and finish is None else ""
        answer.given += bool(token)
        self._tokens += bool(token)
        if finish is None and not answer.tokens:
            finish = answer.finish
        usage = Usage(answer.prompt, 0, answer.given) if finish else None
        answer.told(Piece(token, logprobs=_logprobs(token, answer.ask.logprobs), finish=finish, usage=usage))
        return finish is not None


def _logprobs(token: str, top: int | None) -> tuple[TokenLogprob, ...]:
    """A whole answer has no probabilities: each of its tokens is certain."""
    if top is None or not token:
        return ()
    data = token.encode()
    return (TokenLogprob(token, data, 0.0, ((token, data, 0.0),) if top else ()),)
