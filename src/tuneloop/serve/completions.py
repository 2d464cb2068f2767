"""/v1/completions: prose to be completed, without any chat template. Knows no conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tuneloop.core.conversation import Message
from tuneloop.generate.engine import Request as Question
from tuneloop.generate.live import Ask, TokenLogprob
from tuneloop.serve import requests as asked
from tuneloop.serve import responses as told
from tuneloop.serve.answering import Answer, Answering, begin, by_answer
from tuneloop.serve.asking import fingerprint, several, usage_of
from tuneloop.serve.auth import Who, demand
from tuneloop.serve.config import LimitsConfig
from tuneloop.serve.errors import Refused
from tuneloop.serve.service import Here
from tuneloop.serve.streaming import ALIVE, DONE, PATIENCE, REFUSALS, answered, documented, event
from tuneloop.serve.strict import StrictRoute

router = APIRouter(route_class=StrictRoute)
DEFAULT_TOKENS = 16


@router.post("/v1/completions", responses={**documented(told.TextCompletion), **REFUSALS}, summary="Complete prose")
async def complete(
    body: asked.CompletionRequest, request: Request, service: Here, who: Annotated[Who, Depends(demand("chat"))]
) -> Response:
    """Goes on writing each prompt; with `n` several times. Choices stand in the order of the prompts."""
    answering = begin(service, who, body.model, body.user, asks_of(body, service.config.limits))
    return await answered(answering, request, body, _chunks, _completion)


def asks_of(body: asked.CompletionRequest, limits: LimitsConfig) -> list[Ask]:
    """An ask for each completion that is wanted. Raises Refused for what goes beyond a limit."""
    prompts, count = body.prompts, body.n or 1
    if len(prompts) * count > limits.choices:
        raise Refused(400, f"'prompt' and 'n' ask for {len(prompts) * count}, at most {limits.choices} here", param="n")
    if body.stream_options is not None and not body.stream:
        raise Refused(400, "'stream_options' needs 'stream': true", param="stream_options")
    if body.stream and len(prompts) > 1:
        raise Refused(400, "a stream has one 'prompt'", param="prompt")
    most = body.max_tokens or min(DEFAULT_TOKENS, limits.max_tokens)
    questions = [Question((Message("text", prompt),)) for prompt in prompts]
    return [
        ask for question in questions for ask in several(body, question, most, count, limits, logprobs=body.logprobs)
    ]


def _completion(answering: Answering) -> told.TextCompletion:
    choices = [
        told.TextChoice(
            index=number, text=answer.text, finish_reason=_reason(answer), answer_id=answer.signed,
            logprobs=_logprobs(answer.logprobs, 0) if answer.ask.logprobs is not None else None,
        )
        for number, answer in enumerate(answering.answers)
    ]  # fmt: skip
    return told.TextCompletion(**_head(answering), choices=choices, usage=usage_of(answering))


def _head(answering: Answering) -> dict[str, Any]:
    return {
        "id": f"cmpl-{answering.answers[0].id}", "object": "text_completion", "created": answering.created,
        "model": answering.model, "system_fingerprint": fingerprint(answering),
    }  # fmt: skip


def _reason(answer: Answer) -> Any:
    return "length" if answer.finish == "length" else "stop"


def _logprobs(tokens: Sequence[TokenLogprob], begin: int) -> told.TextLogprobs:
    """`begin`: characters of the answer before these tokens."""
    offsets: list[int] = []
    for token in tokens:
        offsets.append(begin)
        begin += len(token.text)
    return told.TextLogprobs(
        tokens=[token.text for token in tokens], token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{text: logprob for text, _, logprob in token.top} for token in tokens], text_offset=offsets,
    )  # fmt: skip


async def _chunks(answering: Answering, with_usage: bool) -> AsyncIterator[bytes]:
    head = _head(answering)
    nothing: dict[str, Any] = {"usage": None} if with_usage else {}
    written = [0] * len(answering.answers)
    async for taken in answering.pieces(PATIENCE):
        if not taken:
            yield ALIVE
        for number, pieces in by_answer(taken).items():
            answer, over = answering.answers[number], pieces[-1].finish is not None
            refused = answering.refusal(pieces[-1])
            tokens = [token for piece in pieces for token in piece.logprobs]
            choice = told.TextChoice(
                index=number, text="".join(piece.text for piece in pieces),
                finish_reason=_reason(answer) if over and refused is None else None,
                logprobs=_logprobs(tokens, written[number]) if answer.ask.logprobs is not None else None,
                **({"answer_id": answer.signed} if over else {}),
            )  # fmt: skip
            written[number] += len(choice.text)
            if choice.text or over:
                yield event(told.TextCompletion(**head, choices=[choice], **nothing))
            if refused is not None:
                yield event(orjson.dumps(refused.body()))
                return
    if with_usage:
        yield event(told.TextCompletion(**head, choices=[], usage=usage_of(answering)))
    yield DONE
