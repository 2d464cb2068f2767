"""A visitor of the pages talks to the service: the same limits, rates, queue and records as the API's clients have."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from tuneloop.core.conversation import Message
from tuneloop.core.errors import StoreError
from tuneloop.serve import feedback, strict
from tuneloop.serve.answering import begin
from tuneloop.serve.asking import asks_of
from tuneloop.serve.auth import Who
from tuneloop.serve.errors import Refused
from tuneloop.serve.requests import ChatRequest, FeedbackRequest
from tuneloop.serve.service import Service
from tuneloop.serve.sessions import Visitor
from tuneloop.serve.streaming import PATIENCE
from tuneloop.web.talk import Denied, Reason, Said, Verdict, Wish

LOG = logging.getLogger("tuneloop.serve")
Body = TypeVar("Body", bound=BaseModel)
REASONS: dict[int, Reason] = {
    400: "asked", 401: "session", 403: "role", 404: "model", 413: "asked", 429: "busy", 500: "fault", 503: "closed",
    504: "late",
}  # fmt: skip


class Visit:
    """A `Talk`. Each question looks anew whether the visitor's key is good: an open page does not outlive it."""

    def __init__(self, service: Service, visitor: Visitor) -> None:
        self._service, self._visitor = service, visitor
        self.named, self.rates = visitor.user is None, "rate" in visitor.who.roles
        self.most_tokens = service.config.limits.max_tokens

    def models(self) -> Sequence[str]:
        """Public names, that of the model itself first."""
        return list(self._service.roster.listed())

    async def answer(self, messages: Sequence[Message], wish: Wish) -> AsyncIterator[Said]:
        """As `Talk.answer`."""
        limits = self._service.config.limits
        with _denying():
            size = sum(len(message.content.encode()) for message in messages)
            if size > limits.body_bytes:
                raise Refused(413, f"{size:,} bytes in all, at most {limits.body_bytes:,} here")
            body = _read(
                ChatRequest, model=wish.model, max_tokens=wish.max_tokens, temperature=wish.temperature,
                messages=[{"role": message.role, "content": message.content} for message in messages],
            )  # fmt: skip
            who = await self._who("chat")
            answering = begin(self._service, who, body.model, self._visitor.user, asks_of(body, limits))
            try:
                (answer,) = answering.answers
                async for taken in answering.pieces(PATIENCE):
                    for _, piece in taken:
                        if refused := answering.refusal(piece):
                            raise refused
                    text = "".join(piece.text for _, piece in taken)
                    yield Said(text, answer.signed, cut=answer.finish == "length")
            finally:
                answering.end()
                facts = "".join(f" {name}={value}" for name, value in answering.facts().items())
                LOG.info("page answer key=%s%s", who.id, facts)

    async def rate(self, answer_id: str, verdict: Verdict) -> None:
        """As `Talk.rate`."""
        with _denying({404: "gone"}):
            body = _read(
                FeedbackRequest, answer=answer_id, thumb=verdict.thumb, user=self._visitor.user,
                corrected=verdict.corrected or None, comment=verdict.comment or None,
            )  # fmt: skip
            await feedback.keep(self._service, await self._who("rate"), body)

    async def _who(self, role: str) -> Who:
        who = await self._service.doorkeeper.still(self._visitor.who.id)
        if role not in who.roles:
            raise Refused(403, f"this key has no role '{role}'")
        return who


def _read(kind: type[Body], **fields: Any) -> Body:
    """A request as the API would read it, because what comes from a browser is not to be trusted either."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise strict.refusal(RequestValidationError(faults, body=fields)) from None


@contextmanager
def _denying(other: dict[int, Reason] | None = None) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        reason = (other or {}).get(refused.status_code) or REASONS.get(refused.status_code, "fault")
        raise Denied(reason, refused.detail if reason == "asked" else "") from None
    except StoreError as error:  # its messages quote no values
        LOG.error("the store: %s", error)
        raise Denied("closed") from None
