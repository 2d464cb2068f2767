"""An Engine over any OpenAI-compatible server (vLLM, SGLang, llama.cpp, a provider): conversations to JSON and back.

Knows nothing of connections and retries, which are endpoint.py's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tuneloop.core import digest
from tuneloop.core.conversation import JsonObject, Message, ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.generate.endpoint import Endpoint, Refused, address
from tuneloop.generate.engine import Completion, Decoding, Done, Request

HOPELESS = 8  # so many refusals without one answer: it is not the rows


class OpenAIEngine:
    """Asks `model` at `base_url`, `concurrency` requests at a time; the key is in the environment variable `key_env`.

    A chat goes to /chat/completions by the server's own template, prose (role `text`) to /completions. Raises
    ModelError where the server cannot be used; a single request that it refuses is a refused Completion.
    `response_format`: what answers in a chat must look like, as OpenAI's protocol has it.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_env: str = "OPENAI_API_KEY",
        *,
        concurrency: int = 16,
        timeout: float = 300.0,
        response_format: JsonObject | None = None,
    ) -> None:
        self.url, self.model = address(base_url), model
        self._key_env, self._concurrency, self._timeout = key_env, concurrency, timeout
        self._identity: str | None = None
        self._limit_name = "max_tokens"
        self._form = {"response_format": response_format} if response_format else {}

    def _opened(self) -> Endpoint:
        return Endpoint(self.url, self.model, self._key_env, self._concurrency, self._timeout)

    @property
    def identity(self) -> str:
        """Digest of address, model and what the server says of it; weights replaced under their name it cannot see."""

        if self._identity is not None:
            return self._identity

        async def ask() -> dict[str, Any] | None:
            async with self._opened() as endpoint:
                return await endpoint.models()

        known = asyncio.run(ask())
        self._identity = digest.of_value([self.url, self.model, (known or {}).get(self.model), *self._form.values()])
        return self._identity

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer. Sampling is the server's: a seed gives the same answer again where it keeps to seeds."""
        return asyncio.run(self._answer(requests, decoding, done))

    async def _answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None) -> list[Completion]:
        found: dict[int, Completion] = {}
        waiting = iter(enumerate(requests))

        async def work(endpoint: Endpoint) -> None:
            for place, request in waiting:
                found[place] = completion = await self._ask(endpoint, request, decoding)
                if len(found) >= HOPELESS and all(one.refused for one in found.values()):
                    raise ModelError(f"{self.url} refuses every request: {completion.refused}")
                if done is not None:
                    done(place, completion)

        async with self._opened() as endpoint:
            await asyncio.gather(*(work(endpoint) for _ in range(min(self._concurrency, len(requests)))))
        return [found[place] for place in range(len(requests))]

    async def _ask(self, endpoint: Endpoint, request: Request, decoding: Decoding) -> Completion:
        prose = bool(request.messages) and all(message.role == "text" for message in request.messages)
        path, limit = ("/completions", "max_tokens") if prose else ("/chat/completions", self._limit_name)
        said = _prose(request) if prose else _chat(request) | self._form
        body = {"model": self.model, **said, limit: decoding.max_new_tokens, **_sampling(request, decoding)}
        try:
            return _completion(await endpoint.post(path, body), self.url + path)
        except Refused as error:
            # newer models of OpenAI know the limit by this name alone, older servers by the other one alone
            if not prose and limit == "max_tokens" and "max_completion_tokens" in str(error):
                self._limit_name = "max_completion_tokens"
                return await self._ask(endpoint, request, decoding)
            return Completion((), "", False, refused=str(error))


def _prose(request: Request) -> JsonObject:
    return {"prompt": "".join(message.content for message in request.messages)}


def _chat(request: Request) -> JsonObject:
    body: JsonObject = {"messages": _messages(request.messages)}
    if request.tools:
        body["tools"] = [
            tool if "function" in tool else {"type": "function", "function": tool} for tool in request.tools
        ]
    return body


def _messages(messages: Sequence[Message]) -> list[JsonObject]:
    """The wire's shape: arguments as text, and an id on every call and its answer, in order where they have none."""
    out: list[JsonObject] = []
    open_ids: list[str] = []
    made = 0
    for message in messages:
        value: JsonObject = {"role": message.role, "content": message.content}
        if message.tool_calls:
            value["tool_calls"], open_ids = [], []
            for call in message.tool_calls:
                text = (
                    call.arguments
                    if isinstance(call.arguments, str)
                    else json.dumps(call.arguments, ensure_ascii=False)
                )
                open_ids.append(call.id or f"call_{made}")
                made += 1
                function = {"name": call.name, "arguments": text}
                value["tool_calls"].append({"id": open_ids[-1], "type": "function", "function": function})
        if message.role == "tool":
            first = open_ids.pop(0) if open_ids else f"call_{made}"
            value["tool_call_id"] = message.tool_call_id or first
        out.append(value)
    return out


def _sampling(request: Request, decoding: Decoding) -> JsonObject:
    """Only what departs from the default: servers refuse what they do not know."""
    if decoding.temperature == 0:
        return {"temperature": 0}
    out: JsonObject = {"temperature": decoding.temperature, "seed": request.seed}
    if decoding.top_p != 1:
        out["top_p"] = decoding.top_p
    if decoding.top_k is not None:
        out["top_k"] = decoding.top_k
    return out


def _completion(value: JsonObject, where: str) -> Completion:
    try:
        choice = value["choices"][0]
        message = choice.get("message")
        text = choice["text"] if message is None else message.get("content") or message.get("refusal") or ""
        calls = tuple(_call(call) for call in (message or {}).get("tool_calls") or ())
        why = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(f"{where} answers in another shape than OpenAI's: {str(value)[:200]}") from error
    if why == "content_filter" and not text:
        return Completion((), "", False, refused="the server's content filter took the answer away")
    return Completion((), text, why != "length", calls=calls)


def _call(value: JsonObject) -> ToolCall:
    function = value["function"]
    arguments = function["arguments"]
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        parsed = arguments
    return ToolCall(function["name"], parsed, value.get("id"))
