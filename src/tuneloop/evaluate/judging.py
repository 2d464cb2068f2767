"""A judge's question and verdict as texts; knows nothing of engines, metrics or numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Literal

from tuneloop.core import digest
from tuneloop.core.conversation import Message
from tuneloop.texts.words import script_of

Language = Literal["en", "zh"]
Verdict = Literal["first", "second", "tie"]
CRITERIA = {
    "en": "correctness first, then whether it does what was asked, then clarity.",
    "zh": "首先看是否正确，其次看是否按要求回答，最后看是否清楚。",
}
AS_JSON = {
    "en": 'Answer with JSON alone: {"verdict": "A"} if answer A is better, {"verdict": "B"} if answer B is better, '
    '{"verdict": "C"} if they are equally good.',
    "zh": '只回答 JSON：回答 A 更好写 {"verdict": "A"}，回答 B 更好写 {"verdict": "B"}，'
    '两者一样好写 {"verdict": "C"}。',
}
"""The end of the question where the verdict alone is asked for."""
SCHEMA = {
    "type": "object", "properties": {"verdict": {"type": "string", "enum": ["A", "B", "C"]}},
    "required": ["verdict"], "additionalProperties": False,
}  # fmt: skip
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
"""OpenAI's form of the same demand, for servers that constrain what a model may say."""
_VERDICT = re.compile(r"\[\[\s*([ABCabc])\s*\]\]")
_BARE = re.compile(r"\W*([ABC])\W*")
_JSON = re.compile(r'\s*\{\s*"verdict"\s*:\s*"([ABC])"\s*\}\s*')
_MEANS: dict[str, Verdict] = {"A": "first", "B": "second", "C": "tie"}


@cache
def prompt(language: Language) -> str:
    """The judge's prompt, with $criteria, $request, $first and $second."""
    return (files("tuneloop.evaluate") / "prompts" / f"judge_{language}.txt").read_text("utf-8")


def prompts_digest() -> str:
    """Of both prompts and the criteria, for signatures."""
    return digest.short(digest.of_value([prompt("en"), prompt("zh"), CRITERIA]), 8)


def language_of(conversation: Sequence[Message], *answers: str) -> Language:
    """`zh` where most of it is written in Chinese, else `en`."""
    return "zh" if script_of("\n".join([*(message.content for message in conversation), *answers])) == "zh" else "en"


def question(
    conversation: Sequence[Message], first: str, second: str, language: Language, criteria: str = "",
    as_json: bool = False,
) -> str:  # fmt: skip
    """What the judge is asked; `criteria` replaces the usual ones, `as_json` asks for the verdict without reasons."""
    said = "\n\n".join(f"[{message.role}]\n{message.content}" for message in conversation)
    parts = {"criteria": criteria or CRITERIA[language], "request": said, "first": first, "second": second}
    # an answer must not close its own mark and go on as the judge's instructions
    safe = {name: re.sub(r"<(/?(?:request|answer_[AB]))", r"‹\1", text) for name, text in parts.items()}
    text = prompt(language)
    if as_json:
        *before, _ = text.rstrip().split("\n")
        text = "\n".join([*before, AS_JSON[language], ""])
    return Template(text).substitute(safe)


def verdict_of(answer: str) -> Verdict | None:
    """The last verdict in a judge's answer; None where it gives none."""
    found = _VERDICT.findall(answer)
    if found:
        return _MEANS[found[-1].upper()]
    bare = _JSON.fullmatch(answer) or _BARE.fullmatch(answer)
    return _MEANS[bare[1]] if bare is not None else None
