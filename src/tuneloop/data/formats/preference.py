"""Format `preference`: a question with a better and a worse answer, as TRL and LLaMA-Factory write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.asked import CONVERSATIONS, TURNS
from tuneloop.data.formats import Format, Parts, RowError
from tuneloop.data.turns import PROMPTS, read_history, read_tools, read_turns, reject_media, rest, text_of

ANSWERS = ("chosen", "rejected")


class Preference(Format):
    """`chosen` and `rejected`: texts, turns, or whole conversations that differ in their last answer.

    What is asked stands in `prompt` (text or turns; also instruction with input, question, conversations …) or begins
    both conversations. Only the two answers are trained on; the worse one by tune.objective.orpo alone.
    """

    prompt: str | list[str] | None = None
    """The column of the question, or several that are joined by line breaks; by default the usual names."""
    chosen: str = "chosen"
    """The column of the better answer."""
    rejected: str = "rejected"
    """The column of the worse answer."""
    system: str | None = "system"
    """The column of a system prompt; null: none is read."""
    history: str | None = "history"
    """The column of earlier rounds; null: none are read."""
    tools: str | None = "tools"
    """The column of the tools' JSON schemas; null: none is read."""
    role: str | None = None
    """The key of a turn that names its role; by default role or from."""
    content: str | None = None
    """The key of a turn that holds its text; by default content or value."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Names of roles beyond the usual ones, e.g. {customer: user, agent: assistant}."""

    def parse(self, record: JsonObject) -> Parts:
        reject_media(record)
        for column in (self.chosen, self.rejected):
            if record.get(column) is None:
                raise RowError(f"no column '{column}' with an answer", columns=list(record))
        columns = self._columns(record)
        asked = self._asked(record, columns)
        chosen, rejected = (self._whole(record[column], asked) for column in (self.chosen, self.rejected))
        messages, worse = _apart(chosen, rejected)
        used = [*columns, self.chosen, self.rejected, *filter(None, (self.system, self.history, self.tools))]
        if record.get("messages") == record[self.chosen]:  # UltraFeedback repeats the better conversation
            used.append("messages")
        tools = read_tools(record.get(self.tools)) if self.tools is not None else ()
        return Parts(messages, tools, rest(record, *used), rejected=(worse,))

    def likeness(self, record: JsonObject) -> float:
        return float(all(record.get(name) not in (None, "") for name in ANSWERS))

    def _columns(self, record: JsonObject) -> list[str]:
        """The columns of what is asked."""
        if self.prompt is not None:
            return [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if {"instruction", "input"} <= record.keys():
            return ["instruction", "input"]
        names = (*PROMPTS, *(name for name in CONVERSATIONS if name != "messages"))
        return [name for name in names if record.get(name) not in (None, "")][:1]

    def _asked(self, record: JsonObject, columns: list[str]) -> list[Message]:
        system = record.get(self.system) if self.system is not None else None
        messages = [Message("system", text_of(system, "system"))] if system else []
        for question, answer in read_history(record.get(self.history) if self.history is not None else None):
            messages += [Message("user", question), Message("assistant", answer)]
        values = [record[column] for column in columns if record.get(column) not in (None, "")]
        if len(values) == 1 and isinstance(values[0], (list, Mapping)):
            return [*messages, *self._turns(values[0])]
        text = "\n".join(text_of(value, "prompt") for value in values)
        return [*messages, Message("user", text)] if text.strip() else messages

    def _whole(self, answer: Any, asked: list[Message]) -> list[Message]:
        """The conversation up to an answer, which may begin with what was asked itself."""
        if not isinstance(answer, (list, Mapping)):
            return [*asked, Message("assistant", text_of(answer, "answer"))]
        turns = self._turns(answer)
        if turns[0].role == "assistant":
            return [*asked, *turns]
        before = [one for one in asked if one.role == "system" and turns[0].role != "system"]
        return [*before, *turns]

    def _turns(self, value: Any) -> list[Message]:
        turns = value if isinstance(value, list) else [value]
        first = turns[0] if turns and isinstance(turns[0], Mapping) else {}
        role, content = next((keys for keys in TURNS if {*keys} <= first.keys()), TURNS[0])
        return read_turns(turns, self.role or role, self.content or content, self.roles).messages


def _apart(chosen: list[Message], rejected: list[Message]) -> tuple[tuple[Message, ...], Message]:
    """(the conversation with the better answer, of which the last message alone is trained on; the worse answer)."""
    *asked, better = chosen
    *again, worse = rejected
    if not asked:
        raise RowError("nothing is asked: the row has neither a prompt nor turns before the answers")
    if asked != again:
        raise RowError("chosen and rejected differ in more than their last message", chosen=len(chosen))
    if (better.role, worse.role) != ("assistant", "assistant"):
        raise RowError("chosen and rejected must end with the assistant's answer", role=better.role)
    if replace(better, train=None) == replace(worse, train=None):
        raise RowError("chosen and rejected are the same")
    return (*(replace(one, train=0.0) if one.weight else one for one in asked), better), replace(worse, train=None)
