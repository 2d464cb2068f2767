"""A chat template at work: messages to text through the tokenizer's own Jinja, and the template's habits.

Knows nothing of token ids, weights or lengths. What a template does is learnt by rendering small conversations with it,
never by reading its source or its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.core.errors import ModelError
from tuneloop.render.rendered import Unrenderable
from tuneloop.render.traced import Traces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A template that asks for today's date would render differently every day, and differently in training and serving.
# A macro of the same name shadows the function; apply_chat_template passes data only, no functions.
FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(
        f" | replace('{code}', '{value}')"
        for code, value in {
            "%-d": "26", "%e": "26", "%d": "26", "%-m": "7", "%m": "07", "%Y": "2024", "%y": "24", "%B": "July",
            "%b": "Jul", "%A": "Friday", "%a": "Fri", "%H": "12", "%I": "12", "%M": "00", "%S": "00",
            "%p": "PM", "%j": "208",
        }.items()
    )
    + " -}}{%- endmacro -%}"
)  # fmt: skip
MANY = 16
"""Conversations at once from which on it pays to follow the template rather than to run it."""
THINK_OPEN, THINK_CLOSE = "<think>\n", "\n</think>\n\n"
# Words that no template trims, splits or capitalises away; nine letters because Mistral checks the length of call ids.
_ASK, _SAY, _WHY, _KEY, _NAME, _CALL = "qqaskedqq", "qqsaidqq", "qqwhyqq", "qqkeyqq", "qqnameqq", "qqcallid0"


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template (or `source` in its place) with the variables that it is given."""

    tokenizer: PreTrainedTokenizerBase
    source: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _known: dict[str, Traces] = field(default_factory=dict[str, Traces], init=False, compare=False, repr=False)

    def text(self, messages: Sequence[JsonObject], tools: Sequence[JsonObject] = (), *, prompt: bool = False) -> str:
        """The conversation as the template writes it; with `prompt`, up to where the assistant's turn begins.

        Raises Unrenderable with the template's own message when it refuses.
        """
        (written,) = self.texts([messages], tools, prompt=prompt)
        if isinstance(written, Unrenderable):
            raise written
        return written

    def texts(
        self, chats: Sequence[Sequence[JsonObject]], tools: Sequence[JsonObject] = (), *, prompt: bool = False
    ) -> list[str | Unrenderable]:
        """As `text`, for many conversations with the same tools: what surrounds a call costs as much as its work."""
        given: list[Any] | None = list(tools) or None
        source = self.source or self.tokenizer.get_chat_template(None, given)
        if "strftime_now" in source:
            source = FIXED_DATE + source
        if given or len(chats) < MANY:
            return self._rendered(source, chats, given, prompt)
        traces = self._traces(source)
        found: list[str | Unrenderable | None] = [traces.text(chat, prompt) for chat in chats]
        left = [chat for chat, text in zip(chats, found, strict=True) if text is None]
        rendered = self._rendered(source, left, None, prompt) if left else []
        for chat, text in zip(left, rendered, strict=True):
            if isinstance(text, str):
                traces.learn(chat, prompt, text)
        others = iter(rendered)
        return [next(others) if text is None else text for text in found]

    def _traces(self, source: str) -> Traces:
        """What is known of the template with these variables; the tokenizer's own may change."""
        variables = {**self.tokenizer.special_tokens_map, **self.variables}
        known = self._known.get(source)
        if known is None or known.variables != variables:
            known = self._known[source] = Traces(source, variables)
        return known

    @property
    def differed(self) -> bool:
        """Whether following the template once gave another text than the template itself, which writes all since."""
        return any(traces.differed for traces in self._known.values())

    def _rendered(
        self, source: str, chats: Sequence[Sequence[JsonObject]], tools: list[Any] | None, prompt: bool
    ) -> list[str | Unrenderable]:
        """What the template itself gives."""
        from jinja2 import TemplateError

        try:
            written: Any = self.tokenizer.apply_chat_template(
                [list(chat) for chat in chats], tools, chat_template=source, add_generation_prompt=prompt,
                tokenize=False, **self.variables,
            )  # fmt: skip
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            # a template is a program: what it cannot do with a row comes as any of these
            if len(chats) > 1:
                return [one for chat in chats for one in self._rendered(source, [chat], tools, prompt)]
            roles = [message["role"] for message in chats[0]]
            refused = Unrenderable(f"the chat template refuses the conversation: {error}", {"roles": roles})
            refused.__cause__ = error.with_traceback(None)
            return [refused]
        return [str(text) for text in written]


@dataclass(frozen=True)
class Habits:
    """How a template writes answers.

    ends       whether the template itself ends a plain answer with a token
    stops      the strings that end an assistant turn; each is one token; the first ends plain answers
    tail       what follows a plain answer's text where the template writes no such token
    opening    what the model must write before a plain answer, e.g. an empty <think> block
    unwritten  the end of the generation prompt that the template leaves out of finished answers (DeepSeek-R1: <think>)
    thinking   what stands before and after the reasoning, or None where the template has no place for it
    ignored    what the template leaves out without a word: of system, tools, tool_calls, tool
    """

    ends: bool
    stops: tuple[str, ...]
    tail: str
    opening: str
    unwritten: str
    thinking: tuple[str, str] | None
    arguments_as_text: bool
    ignored: frozenset[str]
    control: tuple[str, ...]


def learn(template: ChatTemplate, eos: str | None) -> Habits:
    """Renders small conversations to find out. Raises ModelError for a template that cannot chat at all."""
    ask: JsonObject = {"role": "user", "content": _ASK}
    say: JsonObject = {"role": "assistant", "content": _SAY}
    try:
        prompt, full = template.text([ask], prompt=True), template.text([ask, say])
    except Unrenderable as error:
        raise ModelError(f"the chat template fails on a question and its answer: {error.reason}") from error
    if full.count(_SAY) != 1:
        raise ModelError("the chat template does not write the assistant's answer; give another one as `chat_template`")
    before, tail = full.split(_SAY)
    added = any_of(token.content for token in template.tokenizer.added_tokens_decoder.values())
    match = added.search(tail)
    stop = match.group() if match else eos
    if stop is None:
        raise ModelError("neither the chat template nor the tokenizer has an end token: set `eos_token`")
    shared = prompt if before.startswith(prompt) else _common(prompt, before)
    as_text, call_stop = _learn_calls(template, ask, added)
    stops = tuple(dict.fromkeys(word for word in (stop, call_stop, eos) if word))
    special = [token.content for token in template.tokenizer.added_tokens_decoder.values() if token.special]
    special += ["<|im_start|>", "<|im_end|>"]  # also where they are ordinary text
    return Habits(
        ends=match is not None,
        stops=stops,
        tail="" if match else tail,
        opening=before[len(shared) :],
        unwritten=prompt[len(shared) :],
        thinking=_learn_thinking(template, ask, shared),
        arguments_as_text=as_text,
        ignored=_learn_ignored(template, ask, as_text),
        control=tuple(dict.fromkeys([*stops, *(word for word in special if word in full)])),
    )


def _learn_thinking(template: ChatTemplate, ask: JsonObject, shared: str) -> tuple[str, str] | None:
    text = _try(template, [ask, {"role": "assistant", "content": _SAY, "reasoning_content": _WHY}])
    if text is None or not 0 <= text.find(_WHY) < text.find(_SAY):
        return None
    opening = text[len(shared) : text.index(_WHY)] if text.startswith(shared) else THINK_OPEN
    return opening, text[text.index(_WHY) + len(_WHY) : text.index(_SAY)]


def _learn_calls(template: ChatTemplate, ask: JsonObject, added: re.Pattern[str]) -> tuple[bool, str | None]:
    """Whether arguments are wanted as JSON text, and the token that ends a turn with calls."""
    for as_text in (False, True):
        text = _try(template, [ask, _call(as_text)])
        # a template that prints the mapping itself writes Python ('key'), which is no JSON
        if text is not None and _KEY in text and f"'{_KEY}'" not in text:
            ends = added.findall(text[text.rindex(_KEY) :])
            return as_text, ends[-1] if ends else None
    return False, None


def _learn_ignored(template: ChatTemplate, ask: JsonObject, as_text: bool) -> frozenset[str]:
    tool: JsonObject = {
        "type": "function",
        "function": {"name": _NAME, "description": _NAME, "parameters": {"type": "object", "properties": {}}},
    }
    result = {"role": "tool", "content": _WHY, "tool_call_id": _CALL, "name": _NAME}
    tries = {
        "system": (_WHY, _try(template, [{"role": "system", "content": _WHY}, ask])),
        "tools": (_NAME, _try(template, [ask], [tool])),
        "tool_calls": (_NAME, _try(template, [ask, _call(as_text)])),
        "tool": (_WHY, _try(template, [ask, _call(as_text), result])),
    }
    return frozenset(name for name, (word, text) in tries.items() if text is not None and word not in text)


def _call(as_text: bool) -> JsonObject:
    arguments: Any = {_KEY: _WHY}
    function = {"name": _NAME, "arguments": json.dumps(arguments) if as_text else arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": _CALL, "type": "function", "function": function}]}


def _try(template: ChatTemplate, messages: list[JsonObject], tools: Sequence[JsonObject] = ()) -> str | None:
    try:
        return template.text(messages, tools)
    except Unrenderable:  # a row that needs it will be refused with the template's own words
        return None


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the words, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)")


def _common(left: str, right: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return left[:length]


def split_thinking(message: Message) -> tuple[str | None, str]:
    """Reasoning and answer, also where the data carries the reasoning inside the content."""
    if message.reasoning is None and message.content.lstrip().startswith("<think>") and "</think>" in message.content:
        reasoning, _, content = message.content.lstrip().removeprefix("<think>").partition("</think>")
        return reasoning.strip("\n"), content.lstrip("\n")
    return message.reasoning, message.content


def with_thinking(message: Message) -> str:
    """Reasoning and answer in one text, as reasoning models write them; an empty block where there is no reasoning."""
    if message.reasoning is None and message.content.lstrip().startswith("<think>"):
        return message.content
    return THINK_OPEN + (message.reasoning or "").strip("\n") + THINK_CLOSE + message.content


def to_template(message: Message, habits: Habits) -> JsonObject:
    """A message as the template wants it."""
    fold = message.reasoning is not None and habits.thinking is None
    out: JsonObject = {"role": message.role, "content": with_thinking(message) if fold else message.content}
    if message.reasoning is not None and not fold:
        out["reasoning_content"] = message.reasoning
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["tool_calls"] = [
            {
                **({"id": call.id} if call.id is not None else {}),
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments, habits.arguments_as_text)},
            }
            for call in message.tool_calls
        ]
    return out


def _arguments(value: Any, as_text: bool) -> Any:
    return json.dumps(value, ensure_ascii=False) if as_text and not isinstance(value, str) else value
