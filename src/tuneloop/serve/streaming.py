"""Server-sent events: an answer as it is written, a sign of life while nothing comes, an end when nobody reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tuneloop.serve.answering import Answering, ending, watching
from tuneloop.serve.errors import documented as refusals
from tuneloop.serve.requests import Sampling
from tuneloop.serve.responses import Told

PATIENCE = 10.0
"""Seconds without a piece after which the client gets a comment: proxies cut connections on which nothing comes."""
ALIVE = b": still working\n\n"
DONE = b"data: [DONE]\n\n"
REFUSALS = refusals(400, 401, 403, 404, 408, 413, 415, 421, 429, 500, 503, 504)
"""What a route that asks the engine may answer instead."""


def event(value: Told | bytes) -> bytes:
    """An event of a stream."""
    return b"data: " + (value if isinstance(value, bytes) else value.json_bytes()) + b"\n\n"


async def answered(
    answering: Answering,
    request: Request,
    body: Sampling,
    chunks: Callable[[Answering, bool], AsyncIterator[bytes]],
    completion: Callable[[Answering], Told],
) -> Response:
    """The answers as they were wanted: by `chunks` as a stream, by `completion` when all are over. Raises Refused."""
    with ending(answering):
        async with watching(request, answering):
            await answering.first(PATIENCE)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(chunks(answering, usage), answering, request)
        await answering.wait(request)
        return whole(completion(answering), answering, request)


class EventStream(Response):
    """Sends the chunks of an answer. When the client leaves, the answer is given up; in any case it is ended."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], answering: Answering, request: Request) -> None:
        self._chunks, self._answering, self._request = chunks, answering, request
        self.status_code, self.background = 200, None
        self.init_headers({"X-Accel-Buffering": "no", **answer_headers(answering)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with watching(self._request, self._answering):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for chunk in self._chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._answering.end()
            scope["facts"] = self._answering.facts()


def whole(body: Told, answering: Answering, request: Request) -> Response:
    """All answers at once, when they are over."""
    answering.end()
    request.scope["facts"] = answering.facts()
    return Response(body.json_bytes(), headers=answer_headers(answering), media_type="application/json")


def answer_headers(answering: Answering) -> dict[str, str]:
    """The signed ids of the answers, for /v1/feedback."""
    return {"X-Answer-Id": ", ".join(answer.signed for answer in answering.answers)}


def documented(model: type[BaseModel]) -> dict[int | str, dict[str, object]]:
    """The OpenAPI document of a route that answers by `model` or by a stream."""
    return {200: {"model": model, "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
