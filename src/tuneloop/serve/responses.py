"""The answers' shapes, as OpenAI's client reads them; fields that are not OpenAI's say so. Built with what is set."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Told(BaseModel):
    """Base of what is sent: only what was set is written."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    def json_bytes(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, exclude_unset=True)


class PromptDetails(Told):
    """`cached_tokens` of the prompt did not have to be computed."""

    cached_tokens: int


class UsageBody(Told):
    """Tokens of a request; the prompt counts once, however many answers there are."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopLogprob(Told):
    """A token that could have stood here."""

    token: str
    logprob: float
    bytes: list[int]


class TokenBody(TopLogprob):
    """A token of the answer with its log-probability in nats."""

    top_logprobs: list[TopLogprob]


class LogprobsBody(Told):
    """The tokens of an answer."""

    content: list[TokenBody]


class FunctionBody(Told):
    """What is called; the arguments are JSON as text."""

    name: str
    arguments: str


class CallBody(Told):
    """A call that the model wants made."""

    index: int | None = None
    """Only in streams."""
    id: str
    type: Literal["function"]
    function: FunctionBody


class AnswerMessage(Told):
    """An answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    """What the model thought first, where its template tells that apart (not OpenAI's)."""
    tool_calls: list[CallBody] | None = None


Reason = Literal["stop", "length", "tool_calls"]


class Choice(Told):
    """One of the answers."""

    index: int
    message: AnswerMessage
    finish_reason: Reason
    logprobs: LogprobsBody | None
    answer_id: str
    """Signed id, for /v1/feedback (not OpenAI's)."""


class ChatCompletion(Told):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    """Of all that answers follow from: base, adapter, template, precision."""
    choices: list[Choice]
    usage: UsageBody


class Delta(Told):
    """What is new in an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallBody] | None = None


class ChunkChoice(Told):
    """Some more of one of the answers."""

    index: int
    delta: Delta
    finish_reason: Reason | None = None
    logprobs: LogprobsBody | None = None
    answer_id: str | None = None
    """With the last of it (not OpenAI's)."""


class ChatChunk(Told):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: UsageBody | None = None


class TextLogprobs(Told):
    """The tokens of a completion, in the older shape."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Told):
    """One of the completions, or some more of it."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: TextLogprobs | None
    answer_id: str | None = None
    """Signed id, for /v1/feedback; in streams with the last of it (not OpenAI's)."""


class TextCompletion(Told):
    """The completions of prose; also an event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageBody | None = None


class ModelBody(Told):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    digest: str
    """Of all that its answers follow from (not OpenAI's)."""
    context: int | None
    """Tokens of prompt and answer together (not OpenAI's)."""


class ModelList(Told):
    """All models."""

    object: Literal["list"]
    data: list[ModelBody]


class EmbeddingBody(Told):
    """The vector of one text, of length 1: numbers, or their 32-bit floats in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Told):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Told):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage


class FeedbackBody(Told):
    """A vote that is stored for good."""

    object: Literal["feedback"]
    answer: str
    """The answer's id."""


class State(Told):
    """How the service is."""

    status: str


def openai_logprob(text: str, data: bytes, logprob: float) -> dict[str, Any]:
    """A token as OpenAI's chat writes it."""
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(data)}
