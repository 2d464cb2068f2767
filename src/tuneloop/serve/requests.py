"""The requests that are understood, field by field; a field that is not here is refused by its name.

Fields of OpenAI's that would change nothing are taken at the one value that means so (`frequency_penalty: 0`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from tuneloop.serve.strict import Strict


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer, also written 1.0: JSON does not tell them apart."""


def _nothing(value: Any) -> Any:
    if isinstance(value, int | float) and value != 0:
        raise ValueError("not supported here: leave it out, or set it to 0")
    return value


Zero = Annotated[float, BeforeValidator(_nothing), Field(ge=0, le=0)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Model = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class TextPart(Strict):
    """A part of a message. Images, sound and files are refused: nothing is fetched for clients."""

    type: Literal["text"]
    text: str


Text = str | list[TextPart]


class CalledFunction(Strict):
    """What was called."""

    name: Name
    arguments: str
    """JSON, as text."""


class Call(Strict):
    """A call that the assistant made."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    type: Literal["function"]
    function: CalledFunction


class SystemMessage(Strict):
    """What the operator of the conversation says."""

    role: Literal["system", "developer"]
    content: Text


class UserMessage(Strict):
    """What the user says."""

    role: Literal["user"]
    content: Text


class AssistantMessage(Strict):
    """What the model said before."""

    role: Literal["assistant"]
    content: Text | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None
    refusal: None = None


class ToolMessage(Strict):
    """What a tool returned."""

    role: Literal["tool"]
    content: Text
    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    Field(discriminator="role"),
]


class Function(Strict):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of its arguments."""
    strict: Literal[False] | None = None
    """Arguments are not forced to follow their schema."""


class Tool(Strict):
    """A tool that the model may use."""

    type: Literal["function"]
    function: Function


class NamedSchema(Strict):
    """A JSON Schema that the answer follows, `strict` or not."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class FreeFormat(Strict):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Strict):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(Strict):
    """What a stream tells beside the answer."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Sampling(Strict):
    """What chat and completions have in common."""

    model: Model
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0, also where it is not given, takes the likeliest token each time, as evaluation does."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=1)] | None = None
    """Only so many likeliest tokens (not OpenAI's)."""
    n: Annotated[Whole, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = None
    """Who asks: stored as a hash, for delete-by-user and votes."""

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Sampling):
    """A conversation to be answered."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    response_format: Annotated[FreeFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: Literal[True] | None = None


class CompletionRequest(Sampling):
    """Prose to be completed, by base models and probes; no chat template is applied."""

    prompt: str | Annotated[list[str], Field(min_length=1)]
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    """16 where it is not given, as OpenAI's."""
    logprobs: Annotated[Whole, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EmbeddingRequest(Strict):
    """Texts to be embedded."""

    model: Model
    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = None


class FeedbackRequest(Strict):
    """What somebody thought of an answer; a later vote of the same user takes the place of an earlier one."""

    answer: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """The signed id that came with the answer (`answer_id`, header X-Answer-Id)."""
    thumb: Literal[-1, 0, 1] | None = None
    stars: Annotated[Whole, Field(ge=1, le=5)] | None = None
    corrected: Annotated[str, StringConstraints(min_length=1, max_length=65_536)] | None = None
    """What the answer should have been."""
    tags: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=64)]], Field(max_length=16)] = Field(
        []
    )
    comment: Annotated[str, StringConstraints(max_length=8_192)] | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = None
