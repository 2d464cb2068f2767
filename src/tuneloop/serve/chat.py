"""/v1/chat/completions: a conversation in OpenAI's shape to asks, and the answers back, whole or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from tuneloop.core.conversation import ToolCall
from tuneloop.generate.live import Piece, TokenLogprob
from tuneloop.serve import requests as asked
from tuneloop.serve import responses as told
from tuneloop.serve.answering import Answer, Answering, begin, by_answer
from tuneloop.serve.asking import asks_of, fingerprint, usage_of
from tuneloop.serve.auth import Who, demand
from tuneloop.serve.calls import CallReader, arguments_of, call_id
from tuneloop.serve.service import Here
from tuneloop.serve.streaming import ALIVE, DONE, PATIENCE, REFUSALS, answered, documented, event
from tuneloop.serve.strict import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.post(
    "/v1/chat/completions",
    responses={**documented(told.ChatCompletion), **REFUSALS},
    summary="Answer a conversation",
)
async def chat(
    body: asked.ChatRequest, request: Request, service: Here, who: Annotated[Who, Depends(demand("chat"))]
) -> Response:
    """Answers the conversation by the model's own template, as it was trained and evaluated.

    Fields that are not listed are refused by name. Without `temperature` the answer is greedy.
    """
    answering = begin(service, who, body.model, body.user, asks_of(body, service.config.limits))
    return await answered(answering, request, body, _chunks, _completion)


# -- the answer -------------------------------------------------------------------------------------------------------
def _completion(answering: Answering) -> told.ChatCompletion:
    return told.ChatCompletion(
        **_head(answering), object="chat.completion",
        choices=[_choice(number, answer) for number, answer in enumerate(answering.answers)],
        usage=usage_of(answering),
    )  # fmt: skip


def _head(answering: Answering) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answering.answers[0].id}", "created": answering.created, "model": answering.model,
        "system_fingerprint": fingerprint(answering),
    }  # fmt: skip


def _choice(number: int, answer: Answer) -> told.Choice:
    text, calls = answer.said
    message = told.AnswerMessage(role="assistant", content=text if text or not calls else None, refusal=None)
    if reasoning := "".join(answer.reasoning):
        message.reasoning_content = reasoning
    if calls:
        message.tool_calls = [_call(call) for call in calls]
    return told.Choice(
        index=number, message=message, finish_reason=_reason(answer, bool(calls)), answer_id=answer.signed,
        logprobs=_logprobs(answer.logprobs) if answer.ask.logprobs is not None else None,
    )  # fmt: skip


def _reason(answer: Answer, calls: bool) -> told.Reason:
    return "tool_calls" if calls else "length" if answer.finish == "length" else "stop"


def _call(call: ToolCall, **index: int) -> told.CallBody:
    function = told.FunctionBody(name=call.name, arguments=arguments_of(call))
    return told.CallBody(id=call_id(call), type="function", function=function, **index)


def _logprobs(tokens: Sequence[TokenLogprob]) -> told.LogprobsBody:
    return told.LogprobsBody(
        content=[
            told.TokenBody(
                **told.openai_logprob(token.text, token.bytes, token.logprob),
                top_logprobs=[told.TopLogprob(**told.openai_logprob(*one[:3])) for one in token.top],
            )
            for token in tokens
        ]
    )


# -- the stream -------------------------------------------------------------------------------------------------------
async def _chunks(answering: Answering, with_usage: bool) -> AsyncIterator[bytes]:
    """The events. What is wrong after the first of them can only be told as an event."""
    head = _head(answering)
    readers = [CallReader() if answer.ask.request.tools else None for answer in answering.answers]

    def chunk(*choices: told.ChunkChoice, **usage: told.UsageBody | None) -> bytes:
        more: dict[str, Any] = usage or ({"usage": None} if with_usage else {})
        return event(told.ChatChunk(**head, object="chat.completion.chunk", choices=list(choices), **more))

    for number in range(len(readers)):
        delta = told.Delta(role="assistant", content="")
        yield chunk(told.ChunkChoice(index=number, delta=delta, finish_reason=None))
    async for pieces in answering.pieces(PATIENCE):
        if not pieces:
            yield ALIVE
        for number, group in by_answer(pieces).items():
            refused = answering.refusal(group[-1])
            for choice in _told(number, group, answering.answers[number], readers[number], given=refused is None):
                yield chunk(choice)
            if refused is not None:
                yield event(orjson.dumps(refused.body()))
                return
    if with_usage:
        yield chunk(usage=usage_of(answering))
    yield DONE


def _told(
    number: int, pieces: Sequence[Piece], answer: Answer, reader: CallReader | None, given: bool
) -> list[told.ChunkChoice]:
    """The chunks of what is new in one answer; `given`: it does not end by a refusal."""
    text, calls = "".join(piece.text for piece in pieces), tuple[ToolCall, ...]()
    over = pieces[-1].finish is not None
    if reader is not None:
        text = reader.take(text)
        if over:
            rest, calls = reader.end()
            text, calls = text + rest, calls + pieces[-1].calls
    delta: dict[str, Any] = {"content": text} if text else {}
    if reasoning := "".join(piece.reasoning for piece in pieces):
        delta["reasoning_content"] = reasoning
    if calls:
        delta["tool_calls"] = [_call(call, index=place) for place, call in enumerate(calls)]
    chunks: list[told.ChunkChoice] = []
    tokens = [token for piece in pieces for token in piece.logprobs]
    if delta or tokens:
        logprobs: dict[str, Any] = {"logprobs": _logprobs(tokens)} if answer.ask.logprobs is not None else {}
        chunks.append(told.ChunkChoice(index=number, delta=told.Delta(**delta), finish_reason=None, **logprobs))
    if over and given:
        last = told.ChunkChoice(
            index=number, delta=told.Delta(), finish_reason=_reason(answer, bool(calls)), answer_id=answer.signed
        )
        chunks.append(last)
    return chunks
