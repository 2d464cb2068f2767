"""The one data shape: an Example is a conversation with its origin; every stage reads or writes Examples.

Knows nothing of files, tokens or models. `to_json` and `from_json` are the shape of every JSONL that tuneloop writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any, Literal, get_args

from tuneloop.core import digest, jsonl
from tuneloop.core.errors import DataError

Role = Literal["system", "user", "assistant", "tool", "text"]
"""`text` is prose outside any chat: pre-training documents and the probes that a base model completes."""
ROLES: tuple[str, ...] = get_args(Role)
JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes. `arguments` is the parsed JSON value, or the text where it is no JSON."""

    name: str
    arguments: Any
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `train` is its loss weight; None means the default: 1 for assistant turns, 0 for all others."""

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    train: float | None = None

    @property
    def weight(self) -> float:
        return self.train if self.train is not None else float(self.role == "assistant")

    @property
    def is_plain(self) -> bool:
        """Whether it is a role and a text, and nothing more."""
        return not self.tool_calls and self.train is None and self.reasoning is None and self.tool_call_id is None

    def to_json(self) -> JsonObject:
        """The OpenAI shape, plus `reasoning_content` and `train` where they are set."""
        out: JsonObject = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            out["reasoning_content"] = self.reasoning
        if self.tool_calls:
            out["tool_calls"] = [
                {
                    **({"id": call.id} if call.id is not None else {}),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        if self.train is not None:
            out["train"] = self.train
        return out

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Message:
        if value["role"] not in ROLES:
            raise DataError(f"unknown role {value['role']!r}; known: {', '.join(ROLES)}")
        return cls(
            role=value["role"],
            content=value["content"],
            reasoning=value.get("reasoning_content"),
            tool_calls=tuple(
                [
                    ToolCall(call["function"]["name"], call["function"]["arguments"], call.get("id"))
                    for call in value.get("tool_calls", ())
                ]
            ),
            tool_call_id=value.get("tool_call_id"),
            train=value.get("train"),
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an Example comes from: rows count from 0 within their source; parents are ids of Examples."""

    source: str
    row: int
    parents: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        return {"source": self.source, "row": self.row, **({"parents": list(self.parents)} if self.parents else {})}


@dataclass(frozen=True)
class Example:
    """A conversation. `tools` are JSON schemas exactly as given; `meta` carries labels and other columns.

    `rejected` is a worse answer that people or models liked less, in place of the last supervised message.
    """

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[JsonObject, ...] = ()
    meta: JsonObject = field(default_factory=dict[str, Any])
    rejected: tuple[Message, ...] = ()

    @cached_property
    def id(self) -> str:
        """Digest of what is trained on: messages, tools and rejected answer, neither origin nor meta."""
        if self.is_plain:
            named, _ = _frames(tuple([message.role for message in self.messages]))
            with suppress(TypeError):  # halves of surrogate pairs
                return digest.short_of_bytes(named % tuple(jsonl.escaped([one.content for one in self.messages])), 16)
        rejected = [[message.to_json() for message in self.rejected]] if self.rejected else []
        said = [[message.to_json() for message in self.messages], list(self.tools), *rejected]
        told = [m for m in (*self.messages, *self.rejected) if m.train is not None or m.tool_calls]
        texts_only = not self.tools and not told
        return digest.short(digest.of_texts(said) if texts_only else digest.of_value(said), 16)

    def to_json(self) -> JsonObject:
        out: JsonObject = {"id": self.id, "messages": [message.to_json() for message in self.messages]}
        if self.tools:
            out["tools"] = list(self.tools)
        if self.rejected:
            out["rejected"] = [message.to_json() for message in self.rejected]
        return {**out, "meta": self.meta, "origin": self.origin.to_json()}

    @property
    def is_plain(self) -> bool:
        """Whether it is roles and texts, and nothing more to learn from."""
        return not (self.tools or self.rejected) and all(message.is_plain for message in self.messages)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Example:
        origin = value["origin"]
        return cls(
            messages=tuple([Message.from_json(message) for message in value["messages"]]),
            origin=Origin(origin["source"], origin["row"], tuple(origin.get("parents", ()))),
            tools=tuple(value.get("tools", ())),
            meta=dict(value.get("meta", {})),
            rejected=tuple([Message.from_json(message) for message in value.get("rejected", ())]),
        )

    def with_messages(self, messages: tuple[Message, ...]) -> Example:
        """The same Example with other messages (and so another id)."""
        return replace(self, messages=messages)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All messages before the last supervised one: what the model sees when it is asked for the answer."""
        return self.messages[: self._answer_index()]

    @property
    def answer(self) -> Message:
        """The last supervised message. Raises DataError when there is none."""
        return self.messages[self._answer_index()]

    def asking(self, *answer: Message) -> Example:
        """The prompt with this answer alone to learn, whatever else was supervised before it."""
        asked = tuple(replace(message, train=0.0) if message.weight else message for message in self.prompt)
        return replace(self, messages=(*asked, *answer), rejected=())

    def _answer_index(self) -> int:
        if self.messages and (last := self.messages[-1]).role == "assistant" and last.train is None:
            return len(self.messages) - 1  # as in most
        for index in range(len(self.messages) - 1, -1, -1):
            message = self.messages[index]
            if message.role == "assistant" if message.train is None else message.train > 0:  # its weight, asked often
                return index
        raise DataError(f"example {self.id} ({self.origin.source}, row {self.origin.row}) has no supervised message")


def dump_all(examples: Sequence[Example]) -> list[bytes]:
    """`to_json` of each as one line of JSON. Of plain ones the id is found on the way, from the same escaped texts."""
    plain = ["id" not in one.__dict__ and one.is_plain for one in examples]
    chosen = [one for one, easy in zip(examples, plain, strict=True) if easy]
    try:
        texts = iter(jsonl.escaped([message.content for one in chosen for message in one.messages]))
    except TypeError:  # what only the standard library writes
        return [jsonl.dump(one.to_json()) for one in examples]
    lines = iter([_plain_line(one, tuple(islice(texts, len(one.messages)))) for one in chosen])
    return [next(lines) if easy else jsonl.dump(one.to_json()) for one, easy in zip(examples, plain, strict=True)]


def _plain_line(example: Example, texts: tuple[bytes, ...]) -> bytes:
    """The line of a plain Example with these escaped texts."""
    named, line = _frames(tuple([message.role for message in example.messages]))
    example.__dict__["id"] = id_ = digest.short_of_bytes(named % texts, 16)
    origin = example.origin
    if not example.meta and not origin.parents and (source := _dumped(origin.source)):  # as most
        return line % (id_.encode(), *texts, b'"meta":{},"origin":{"source":%b,"row":%d}}' % (source, origin.row))
    rest = jsonl.dump({"meta": example.meta, "origin": origin.to_json()})
    if jsonl.is_spaced(rest):
        return jsonl.dump(example.to_json())
    return line % (id_.encode(), *texts, rest[1:])


@lru_cache(maxsize=64)
def _dumped(source: str) -> bytes:
    """The JSON of a source's name, which thousands of rows share; empty where it has halves of surrogate pairs."""
    with suppress(TypeError):
        return b'"%b"' % jsonl.escaped([source])[0]
    return b""


@lru_cache(maxsize=1_024)
def _frames(roles: tuple[Role, ...]) -> tuple[bytes, bytes]:
    """What stands around the escaped texts of plain messages where their id is found, and in their line."""
    named = ",".join([f'{{"content":"%b","role":"{role}"}}' for role in roles])
    line = ",".join([f'{{"role":"{role}","content":"%b"}}' for role in roles])
    return f"[[{named}],[]]".encode(), f'{{"id":"%b","messages":[{line}],%b'.encode()


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that left the data, with the step that decided, a reason a person understands, and the evidence.

    `example` is an Example, or the raw row where it never became one.
    """

    example: Example | JsonObject
    step: str
    reason: str
    origin: Origin
    evidence: JsonObject = field(default_factory=dict[str, Any])

    def to_json(self) -> JsonObject:
        example = self.example.to_json() if isinstance(self.example, Example) else self.example
        return {
            "example": example,
            "step": self.step,
            "reason": self.reason,
            "origin": self.origin.to_json(),
            "evidence": self.evidence,
        }
