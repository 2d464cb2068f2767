"""From requests to asks: what OpenAI's fields mean to an engine, and what goes beyond the limits. Knows no HTTP."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.generate.engine import Decoding
from tuneloop.generate.engine import Request as Question
from tuneloop.generate.live import Ask, Usage
from tuneloop.serve import requests as asked
from tuneloop.serve import responses as told
from tuneloop.serve.answering import Answering
from tuneloop.serve.config import LimitsConfig
from tuneloop.serve.errors import Refused
from tuneloop.serve.limits import check_schema


def asks_of(body: asked.ChatRequest, limits: LimitsConfig) -> list[Ask]:
    """An ask for each answer that is wanted. Raises Refused for what goes beyond a limit or does not go together."""
    _check(body, limits)
    most = body.max_completion_tokens or body.max_tokens or limits.max_tokens
    tools = () if body.tool_choice == "none" else tuple(_tool(tool) for tool in body.tools or ())
    question = Question(tuple(map(_message, body.messages)), tools)
    schema: dict[str, Any] | None = None
    if isinstance(body.response_format, asked.ObjectFormat):
        schema = {}
    elif isinstance(body.response_format, asked.SchemaFormat):
        schema = body.response_format.json_schema.schema_
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return several(body, question, most, body.n or 1, limits, logprobs=logprobs, schema=schema)


def several(
    body: asked.Sampling,
    question: Question,
    most: int,
    count: int,
    limits: LimitsConfig,
    *,
    logprobs: int | None,
    schema: dict[str, Any] | None = None,
) -> list[Ask]:
    """As many asks of one question; each answer of a sample has a seed of its own, which follows from the first."""
    if most > limits.max_tokens:
        raise Refused(
            400, f"'max_tokens' is at most {limits.max_tokens} here", param="max_tokens", code="invalid_value"
        )
    temperature = body.temperature or 0.0
    if count > 1 and temperature == 0:
        raise Refused(400, "several greedy answers would all be the same: set 'temperature', or 'n' to 1", param="n")
    seed = secrets.randbits(31) if body.seed is None else body.seed
    decoding = Decoding(most, temperature, 1.0 if body.top_p is None else body.top_p, body.top_k)
    return [
        Ask(
            Question(question.messages, question.tools, (seed + number) % 2**63), decoding, body.model,
            stop=body.stops, logprobs=logprobs, schema=schema, timeout=limits.timeout,
        )
        for number in range(count)
    ]  # fmt: skip


def _check(body: asked.ChatRequest, limits: LimitsConfig) -> None:
    for name, count, most in (
        ("messages", len(body.messages), limits.messages),
        ("tools", len(body.tools or ()), limits.tools),
        ("n", body.n or 1, limits.choices),
    ):
        if count > most:
            raise Refused(400, f"'{name}': {count}, at most {most} here", param=name, code="too_many")
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise Refused(400, "give one of 'max_tokens' and 'max_completion_tokens'", param="max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        raise Refused(400, "'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise Refused(400, "'stream_options' needs 'stream': true", param="stream_options")
    if body.tools and body.tool_choice != "none":
        if body.logprobs:
            raise Refused(400, "'logprobs' and 'tools' do not go together here", param="logprobs")
        if body.response_format is not None and body.response_format.type != "text":
            raise Refused(400, "'response_format' and 'tools' do not go together here", param="response_format")
    elif body.tool_choice == "auto" and not body.tools:
        raise Refused(400, "'tool_choice' needs 'tools'", param="tool_choice")
    for number, tool in enumerate(body.tools or ()):
        place = f"tools[{number}].function.parameters"
        check_schema(tool.function.parameters or {}, place, limits.schema_bytes, limits.schema_depth)
    if isinstance(body.response_format, asked.SchemaFormat):
        check_schema(
            body.response_format.json_schema.schema_, "response_format.json_schema.schema",
            limits.schema_bytes, limits.schema_depth,
        )  # fmt: skip


def _message(message: asked.Message) -> Message:
    if isinstance(message, asked.AssistantMessage):
        calls = tuple(
            ToolCall(call.function.name, _arguments(call.function.arguments), call.id)
            for call in message.tool_calls or ()
        )
        return Message("assistant", _text(message.content or ""), message.reasoning_content, calls)
    if isinstance(message, asked.ToolMessage):
        return Message("tool", _text(message.content), tool_call_id=message.tool_call_id)
    return Message("user" if message.role == "user" else "system", _text(message.content))


def _text(content: asked.Text) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _arguments(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _tool(tool: asked.Tool) -> dict[str, Any]:
    return {"type": "function", "function": tool.function.model_dump(exclude_unset=True, exclude={"strict"})}


def fingerprint(answering: Answering) -> str:
    """Of all that the answers follow from, short."""
    return f"fp_{answering.served.digest.rpartition(':')[2][:12]}"


def usage_of(answering: Answering) -> told.UsageBody:
    """Tokens of all answers; the same prompt counts once."""
    first: dict[int, Usage] = {}
    for answer in answering.answers:
        first.setdefault(id(answer.ask.request.messages), answer.usage)  # `several` asks with the same tuple
    prompt, completion = sum(one.prompt for one in first.values()), sum(a.usage.completion for a in answering.answers)
    return told.UsageBody(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion,
        prompt_tokens_details=told.PromptDetails(cached_tokens=sum(one.cached for one in first.values())),
    )  # fmt: skip
