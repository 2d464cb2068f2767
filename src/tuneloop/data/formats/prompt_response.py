"""Format `prompt_response`: a question and its answer in two columns, under any of their usual names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneloop.core.conversation import JsonObject
from tuneloop.data.formats import Format, Parts, RowError
from tuneloop.data.turns import PROMPTS, RESPONSES, Turns, ask_and_answer, read_tools, read_turns, reject_media, rest

CONTEXT = ("context", "passage", "document", "article", "choices", "options", "上下文", "背景", "选项")
"""Columns that usually belong to the prompt: `auto` does not leave them out without asking."""


class PromptResponse(Format):
    """One question and one answer, with optional `system`, `history` and `tools`.

    The question: prompt, query, question, problem, input, instruction or 问题 …; the answer: response, answer, output,
    completion, target or 回答 …; of several, the first in this order. Both may be message lists, as TRL writes
    `prompt` + `completion`; then only the completion is trained on.
    """

    def parse(self, record: JsonObject) -> Parts:
        reject_media(record)
        prompt, response = _find(record, PROMPTS), _find(record, RESPONSES)
        if not prompt or not response:
            role, names = ("answer", RESPONSES) if prompt else ("question", PROMPTS)
            raise RowError(f"no column for the {role} (one of {', '.join(names)})", columns=list(record))
        used = (prompt[0], response[0], "system", "history", "tools")
        meta = rest(record, *used)
        if isinstance(record[prompt[0]], list) or isinstance(record[response[0]], list):
            turns = _two_lists(record[prompt[0]], record[response[0]])
            turns.system(record.get("system"))
            return Parts(tuple(turns.messages), read_tools(record.get("tools")), meta, tuple(turns.notes))
        notes: list[str] = []
        messages = ask_and_answer(record, prompt[0], response[0], notes)
        return Parts(messages, read_tools(record.get("tools")), meta, tuple(notes))

    def likeness(self, record: JsonObject) -> float:
        prompts, responses = _find(record, PROMPTS), _find(record, RESPONSES)
        if not prompts or not responses or {"instruction", "output"} <= record.keys():
            return 0.0
        if len(prompts) + len(responses) > 2 or any(record.get(name) for name in CONTEXT):
            return 0.5
        return 0.9


def _find(record: JsonObject, names: Sequence[str]) -> list[str]:
    """The columns of those names (upper or lower case), in the order of the names."""
    lower = {str(column).strip().lower(): column for column in reversed(record)}
    return [lower[name] for name in names if name in lower]


def _two_lists(prompt: Any, response: Any) -> Turns:
    """TRL's conversational prompt + completion: only the completion is supervised."""
    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    turns = read_turns([{**turn, "train": 0} if isinstance(turn, dict) else turn for turn in asked], "role", "content")
    answered = response if isinstance(response, list) else [{"role": "assistant", "content": response}]
    completion = read_turns(answered, "role", "content")
    turns.messages += completion.messages
    turns.notes += completion.notes
    return turns
