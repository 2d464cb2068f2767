"""Conversations in the shapes of OpenAI's API, and its answers back, whole or as a stream. Knows no connections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from tuneloop.core.conversation import JsonObject, Message, ToolCall
from tuneloop.core.errors import ModelError
from tuneloop.generate import dialects
from tuneloop.generate.config import Dialect
from tuneloop.generate.endpoint import Refused, complaint
from tuneloop.generate.engine import Completion, Decoding, Request
from tuneloop.generate.live import Ask, Piece, TokenLogprob, Usage

NOTHING = Usage(0, 0, 0)
FINISHED = frozenset({"stop", "length", "tool_calls", "function_call"})
REFUSALS = frozenset({"400", "422", "invalid_request_error", "BadRequestError", "Bad Request"})
CHAT, PROSE = "/chat/completions", "/completions"


def asked(model: str, request: Request, decoding: Decoding, dialect: Dialect) -> tuple[str, JsonObject]:
    """(path, body): a chat goes by the server's own template, prose (role `text`) by none. `dialect`: of the server,
    which is told to sample as `decoding` says and in no other way."""
    body: JsonObject = {"model": model}
    prose = bool(request.messages) and all(message.role == "text" for message in request.messages)
    if prose:
        body["prompt"] = "".join(message.content for message in request.messages)
    else:
        body["messages"] = _messages(request.messages)
    if request.tools:
        body["tools"] = [
            tool if "function" in tool else {"type": "function", "function": tool} for tool in request.tools
        ]
    body |= {"max_tokens": decoding.max_new_tokens, **dialects.PLAIN.get(dialect, {}), **_sampling(request, decoding)}
    return PROSE if prose else CHAT, body


def streamed(model: str, ask: Ask, dialect: Dialect, context: int | None = None) -> tuple[str, JsonObject]:
    """(path, body) of an answer that comes as a stream; `context`: tokens of prompt and answer together, if known."""
    path, body = asked(model, ask.request, ask.decoding, dialect)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    if path == CHAT and context is not None and ask.decoding.max_new_tokens >= context:
        del body["max_tokens"]  # the context ends it earlier; vLLM and SGLang refuse a limit that can never be reached
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.logprobs is not None:
        beside = max(1, ask.logprobs)  # llama.cpp tells no token at all where none is wanted beside it
        body |= {"logprobs": beside} if path == PROSE else {"logprobs": True, "top_logprobs": beside}
    if ask.schema is not None:
        body["response_format"] = (
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(ask.schema), "strict": True}}
            if ask.schema
            else {"type": "json_object"}
        )
    return path, body


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


class Streamed:
    """An answer that comes as a stream, chunk by chunk; its `end` says whether it is whole."""

    def __init__(self, ask: Ask, where: str) -> None:
        """`where`: the address, for error messages."""
        self._ask, self._where = ask, where
        self._why: str | None = None
        self._calls: dict[int, JsonObject] = {}
        self._said, self._told = False, 0
        self._text: list[str] = []
        self.usage = NOTHING
        """As the server tells it, at its end."""

    def take(self, chunk: JsonObject) -> Piece | None:
        """What is new. Raises Refused or ModelError for an error in the stream, ModelError for another shape."""
        if chunk.get("error"):
            self._raise(chunk)
        try:
            if chunk.get("usage"):
                self.usage = _usage(chunk["usage"])
            if not chunk["choices"]:
                return None
            choice = chunk["choices"][0]
            delta = choice if "text" in choice else choice["delta"]
            text = (delta.get("text") or delta.get("content") or "") + (delta.get("refusal") or "")
            # vLLM's newer name for it
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or ():
                self._add(call)
            logprobs = _logprobs(choice.get("logprobs")) if self._ask.logprobs is not None else ()
            if self._ask.logprobs == 0:
                logprobs = tuple(replace(one, top=()) for one in logprobs)
            self._why = choice.get("finish_reason") or self._why
            piece = Piece("" + text, "" + reasoning, logprobs)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(f"{self._where} streams in another shape than OpenAI's") from error
        self._told += len(logprobs)
        if self._ask.schema is not None:
            self._text.append(text)
        self._said = self._said or bool(text)
        return piece if text or reasoning or logprobs else None

    def end(self) -> Piece:
        """The last piece. Raises ModelError for half an answer, and for one that shows that a wish was ignored."""
        if self._why is None:
            raise ModelError(f"the answer of {self._where} broke off before its end")
        if self._why == "content_filter":
            raise Refused("the server's content filter took the answer away")
        if self._why not in FINISHED:
            raise ModelError(f"an answer of {self._where} ended by '{str(self._why)[:40]}'")
        cut = self._why == "length"
        if self._ask.schema is not None and not cut and not self._is_json():
            raise ModelError(f"{self._where} ignores response_format: it gave no JSON")
        if self._ask.logprobs is not None and self._said and not self._told:
            raise ModelError(f"{self._where} ignores logprobs: it gave none")
        calls = tuple(_call(self._calls[place]) for place in sorted(self._calls))
        if cut and calls and isinstance(calls[-1].arguments, str):
            calls = calls[:-1]  # half a call
        return Piece("", finish="length" if cut else "stop", usage=self.usage, calls=calls)

    def _add(self, delta: JsonObject) -> None:
        """Some more of a tool call."""
        call = self._calls.setdefault(int(delta.get("index", len(self._calls))), {"function": {}})
        function, more = call["function"], delta.get("function") or {}
        call["id"] = delta.get("id") or call.get("id")
        function["name"] = function.get("name", "") + (more.get("name") or "")
        function["arguments"] = function.get("arguments", "") + (more.get("arguments") or "")

    def _raise(self, chunk: JsonObject) -> None:
        error = chunk["error"]
        kinds = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
        if any(str(kind) in REFUSALS for kind in kinds):  # SGLang tells so what others tell as status 400
            raise Refused(complaint(chunk))
        raise ModelError(f"{self._where} failed in the middle of an answer: {complaint(chunk)}")

    def _is_json(self) -> bool:
        try:
            found = json.loads("".join(self._text))
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) or bool(self._ask.schema)


def _usage(value: JsonObject) -> Usage:
    details = value.get("prompt_tokens_details") or {}
    counts = (value["prompt_tokens"], details.get("cached_tokens") or 0, value.get("completion_tokens") or 0)
    return Usage(*map(int, counts))


def _logprobs(value: JsonObject | None) -> tuple[TokenLogprob, ...]:
    """Of a chat (`content`), or of prose as OpenAI's older API tells them."""
    if not value:
        return ()
    if value.get("content"):
        return tuple(
            TokenLogprob(*_token(one), top=tuple(_token(other) for other in one.get("top_logprobs") or ()))
            for one in value["content"]
        )
    texts, numbers, tops = (value.get(key) or () for key in ("tokens", "token_logprobs", "top_logprobs"))
    return tuple(
        TokenLogprob(
            text, text.encode(), float(number), tuple((t, t.encode(), float(n)) for t, n in (top or {}).items())
        )
        for text, number, top in zip(texts, numbers, tops or [None] * len(texts), strict=True)
    )


def _token(value: JsonObject) -> tuple[str, bytes, float]:
    text, data = value["token"], value.get("bytes")
    return text, text.encode() if data is None else bytes(data), float(value["logprob"])


def completion(value: JsonObject, where: str) -> Completion:
    """A whole answer. Raises ModelError for one in another shape; `where`: the address, for its message."""
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
