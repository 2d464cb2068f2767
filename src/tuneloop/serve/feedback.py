"""/v1/feedback: what people thought of an answer, stored for good before it is acknowledged. Untrusted data."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from tuneloop.core.errors import StoreError
from tuneloop.serve import requests as asked
from tuneloop.serve import responses as told
from tuneloop.serve.auth import Who, demand
from tuneloop.serve.errors import Refused, documented, store_unavailable
from tuneloop.serve.recording import user_of
from tuneloop.serve.service import Here, Service
from tuneloop.serve.strict import StrictRoute
from tuneloop.store.records import Feedback, UnknownAnswer

router = APIRouter(route_class=StrictRoute)


@router.post(
    "/v1/feedback",
    responses={
        200: {"model": told.FeedbackBody}, **documented(400, 401, 403, 404, 408, 413, 415, 421, 429, 500, 503)
    },
    summary="Vote on an answer",
)  # fmt: skip
async def vote(body: asked.FeedbackRequest, service: Here, who: Annotated[Who, Depends(demand("rate"))]) -> Response:
    """Stores a vote; a later one of the same user on the same answer takes its place."""
    answer = await keep(service, who, body)
    return Response(told.FeedbackBody(object="feedback", answer=answer).json_bytes(), media_type="application/json")


async def keep(service: Service, who: Who, body: asked.FeedbackRequest) -> str:
    """Stores a vote for good; the id of the answer that it is for. Raises Refused."""
    service.votes.take(who.id)
    if service.store.trouble:  # known to be away: nobody waits half a minute for that, nor do the threads
        raise store_unavailable("votes cannot be stored just now")
    answer = service.store.check(body.answer)
    if answer is None:
        raise Refused(400, "'answer': not a signed id of this service's answers", param="answer", code="unknown_answer")
    try:
        feedback = Feedback(
            answer, service.store.pseudonym(user_of(who.id, body.user)), datetime.now(UTC), body.thumb, body.stars,
            body.corrected, tuple(body.tags), body.comment,
        )  # fmt: skip
    except StoreError as error:
        raise Refused(400, str(error), code="invalid_value") from None
    try:
        await service.clerks.ask(partial(service.vote, feedback))
    except UnknownAnswer:
        raise Refused(404, "this answer is not kept (any more)", param="answer", code="unknown_answer") from None
    service.meters.vote(body.thumb)
    return answer
