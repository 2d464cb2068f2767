"""The answers to one request, from the engine's queue to the store: pieces by a mailbox, times, records, figures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from starlette.requests import ClientDisconnect, Request

from tuneloop.core.conversation import ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.generate.live import Ask, Busy, Finish, Piece, Served, Ticket, TokenLogprob, Usage
from tuneloop.serve.adapters import UnknownModel
from tuneloop.serve.auth import Who
from tuneloop.serve.calls import split
from tuneloop.serve.errors import Refused, away, busy, slow, stopping, store_unavailable
from tuneloop.serve.mailbox import Mailbox
from tuneloop.serve.recording import record
from tuneloop.serve.service import Service
from tuneloop.store.records import new_id

LOG = logging.getLogger("tuneloop.serve")
MOST_WAITING = 2_048
"""Pieces that a client may be behind before its answers are given up."""
NOTHING = Usage(0, 0, 0)


@dataclass(eq=False)
class Answer:
    """One answer, as far as it is there. Times are in seconds since it was asked."""

    id: str
    signed: str
    ask: Ask
    parts: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    first: float | None = None
    seconds: float = 0.0
    finish: Finish | None = None
    usage: Usage = NOTHING
    calls: tuple[ToolCall, ...] = ()
    """Those that the engine told apart from the text."""

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @cached_property
    def said(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Text and tool calls; asked for when the answer is over."""
        text, calls = split(self.text) if self.ask.request.tools else (self.text, ())
        return text, calls + self.calls


class Answering:
    """The answers to one request, under way. Made by `begin`; `pieces` follows them to their end."""

    def __init__(self, service: Service, who: Who, user: str | None, model: str, served: Served) -> None:
        self.service, self.who, self.user, self.model, self.served = service, who, user, model, served
        self.answers: list[Answer] = []
        self.created, self._asked = int(time.time()), time.monotonic()
        self._mailbox = Mailbox(MOST_WAITING)
        self._tickets: list[Ticket] = []
        self._waiting: list[tuple[int, Piece]] = []
        self._behind = False
        self.left = False
        """Whether the client is gone."""

    def submit(self, ask: Ask) -> None:
        """Puts one more answer into the engine's queue. Raises Busy, or ModelError."""
        place, id = len(self.answers), new_id()
        self.answers.append(Answer(id, self.service.store.sign(id), ask))

        def told(piece: Piece) -> None:
            self._mailbox.put(place, piece)
            if self._mailbox.full:  # nobody takes them: the client does not read
                self._behind = True
                self.give_up()

        self._tickets.append(self.service.engine.submit(ask, told))

    def give_up(self) -> None:
        """The answers are not wanted any more. From any thread."""
        for ticket in self._tickets:
            ticket.cancel()

    async def first(self, patience: float) -> None:
        """Waits for the first pieces, which `pieces` then gives first. Raises Refused where they are a refusal."""
        self._waiting = await self._mailbox.take(patience)
        for _, piece in self._waiting:
            refused = self.refusal(piece)
            if refused is not None:
                self._note(self._waiting)
                raise ClientDisconnect if self.left else refused

    async def pieces(self, patience: float) -> AsyncIterator[list[tuple[int, Piece]]]:
        """What is new, until all answers are over; empty after so many seconds without anything new."""
        while self._waiting or any(answer.finish is None for answer in self.answers):
            taken, self._waiting = self._waiting or await self._mailbox.take(patience), []
            self._note(taken)
            yield taken

    async def wait(self, request: Request) -> None:
        """Waits for all of it. Raises Refused where an answer cannot be given, ClientDisconnect when nobody waits."""
        async with watching(request, self):
            async for taken in self.pieces(self.service.config.limits.timeout):
                for _, piece in taken:
                    refused = self.refusal(piece)
                    if refused is not None:
                        raise ClientDisconnect if self.left else refused

    def refusal(self, piece: Piece) -> Refused | None:
        """What a client is told where a piece ends an answer that cannot be given."""
        if piece.finish == "refused":
            return Refused(400, piece.why or "the prompt cannot be answered", code="prompt_refused")
        if piece.finish == "busy":
            return busy("there is no room just now; try again", piece.retry_after)
        if piece.finish == "timeout":
            return Refused(504, "the answer took too long and was given up", code="timeout")
        if piece.finish == "cancelled":  # by us or by the engine: a client that left is told nothing
            return slow() if self._behind else stopping()
        if piece.finish == "error" and self.service.engine.now().away is not None:
            return away()
        if piece.finish == "error":  # `why` is the operator's: it may tell about the machine
            return Refused(500, "a fault of the engine; the server's log tells more", code="engine_error")
        return None

    def _note(self, taken: Sequence[tuple[int, Piece]]) -> None:
        now = time.monotonic() - self._asked
        for place, piece in taken:
            answer = self.answers[place]
            if answer.first is None and (piece.text or piece.reasoning):
                answer.first = now
            answer.parts.append(piece.text)
            answer.reasoning.append(piece.reasoning)
            answer.logprobs += piece.logprobs
            if piece.finish is not None:
                answer.calls = piece.calls
                if piece.finish == "error":
                    # what comes before a colon: behind it are others' words, which may be of the prompt
                    LOG.error("answer %s: %s", answer.id, (piece.why or "").partition(": ")[0][:300])
                self._over(answer, piece.finish, piece.usage or NOTHING)

    def _over(self, answer: Answer, finish: Finish, usage: Usage) -> None:
        answer.finish, answer.usage = finish, usage
        answer.seconds = time.monotonic() - self._asked
        self.service.meters.answer(self.model, finish, answer.first, usage)
        if finish not in ("refused", "busy", "error"):
            record(self, answer)

    def facts(self) -> dict[str, object]:
        """For the log: no texts."""
        tokens = sum(answer.usage.completion for answer in self.answers)
        ids = ",".join(answer.id for answer in self.answers)
        return {"model": self.model, "finish": self.answers[0].finish, "tokens": tokens, "answers": ids}

    def end(self) -> None:
        """Whatever is still under way is given up; its part is kept. Called in any case, also after an error."""
        self.give_up()
        for answer in self.answers:
            if answer.finish is None:
                self._over(answer, "cancelled", NOTHING)
        self.service.under_way.discard(self)
        self._tickets = []  # they lead back here: what was asked, a megabyte at times, would wait for the collector


def begin(service: Service, who: Who, model: str, user: str | None, asks: Sequence[Ask]) -> Answering:
    """Asks the engine. Raises Refused: unknown model (404), no room (429), shutting down (503).

    An ask's model is set to what the public name stands for, and its turn in the queue is its key's.
    """
    service.requests.take(who.id)
    if service.draining:
        raise stopping()
    if service.behind:
        raise store_unavailable("answers cannot be recorded just now")
    try:
        with service.roster.choosing(model) as served:
            answering = Answering(service, who, user, model, served)
            try:
                for ask in asks:
                    answering.submit(replace(ask, model=served.name, user=who.id))
            except BaseException:
                answering.give_up()
                raise
    except UnknownModel:
        raise Refused(
            404, f"no model '{model}' here; GET /v1/models lists them", param="model", code="model_not_found"
        ) from None
    except Busy as error:
        raise busy(str(error), error.retry_after) from None
    except ModelError as error:
        raise Refused(503, str(error), code="engine_unavailable") from None
    service.under_way.add(answering)
    return answering


def by_answer(pieces: Sequence[tuple[int, Piece]]) -> dict[int, list[Piece]]:
    """What has come in one go is told in one go: a client that is behind gets fewer, larger events."""
    found: dict[int, list[Piece]] = {}
    for number, piece in pieces:
        found.setdefault(number, []).append(piece)
    return found


@contextmanager
def ending(answering: Answering) -> Iterator[None]:
    """Ends the answers if the block does not come to its end."""
    try:
        yield
    except BaseException:
        answering.end()
        raise


@asynccontextmanager
async def watching(request: Request, answering: Answering) -> AsyncIterator[None]:
    """Gives the answers up as soon as the client leaves."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        answering.left = True
        answering.give_up()

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
