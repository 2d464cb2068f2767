"""/v1/embeddings: vectors of texts by a sentence encoder, one request at a time, beside the engine."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tuneloop.serve import requests as asked
from tuneloop.serve import responses as told
from tuneloop.serve.auth import Who, demand
from tuneloop.serve.errors import Refused, busy, stopping
from tuneloop.serve.service import Here
from tuneloop.serve.streaming import REFUSALS
from tuneloop.serve.strict import StrictRoute

router = APIRouter(route_class=StrictRoute)
MOST_WAITING = 8
"""Requests that wait for the encoder; it takes one at a time, because it would slow the engine down else."""


@router.post("/v1/embeddings", responses={200: {"model": told.EmbeddingList}, **REFUSALS}, summary="Embed texts")
async def embed(
    body: asked.EmbeddingRequest, request: Request, service: Here, who: Annotated[Who, Depends(demand("chat"))]
) -> Response:
    """A vector of length 1 for each text; longer texts than the encoder reads are cut, as its makers do."""
    encoder = service.embedder
    assert encoder is not None, "this route exists with an encoder only"
    texts = [body.input] if isinstance(body.input, str) else body.input
    if body.model != encoder.name:
        raise Refused(
            404, f"no encoder '{body.model[:80]}' here, only '{encoder.name}'", param="model", code="model_not_found"
        )
    if len(texts) > service.config.limits.messages:
        raise Refused(400, f"'input': {len(texts)}, at most {service.config.limits.messages} here", param="input")
    if service.draining:
        raise stopping()
    service.requests.take(who.id)
    if service.encoding >= MOST_WAITING:
        raise busy(f"{service.encoding} requests wait for the encoder", 1)
    service.encoding += 1
    try:
        async with service.encoder_turn:
            vectors = await asyncio.to_thread(encoder.encode, texts)
            tokens = sum(await asyncio.to_thread(encoder.lengths, texts))
    finally:
        service.encoding -= 1
    data = [
        told.EmbeddingBody(object="embedding", index=number, embedding=_written(vector, body.encoding_format))
        for number, vector in enumerate(vectors)
    ]
    usage = told.EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
    request.scope["facts"] = {"model": encoder.name, "texts": len(texts), "tokens": tokens}
    answer = told.EmbeddingList(object="list", data=data, model=encoder.name, usage=usage)
    return Response(answer.json_bytes(), media_type="application/json")


def _written(vector: np.ndarray, format: str | None) -> list[float] | str:
    if format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
