"""Step `language`: drops rows that are in other languages than those to keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator

from tuneloop.core.conversation import Example
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.steps import Rejection, RowStep
from tuneloop.texts.languages import NONE, Found, identify_all, is_language

_ASKED = re.compile(
    r"(?i)translat|翻译|翻譯|译[成为文]|譯[成為文]|language|\b(?:spanish|french|german|italian|portuguese|dutch|japanese"
    r"|korean|russian|arabic|hindi|latin|greek|turkish|polish|swedish|vietnamese|thai|indonesian|chinese|english)\b"
    r"|[英法德日韩韓俄汉漢中][语語文]|西班牙|葡萄牙|意大利|阿拉伯|拉丁|语言|語言|方言"
)
_USERS, _ANSWERS = ("user",), ("assistant", "text")
FEW_WORDS = 3  # of an instruction in a language to keep, before a text in another one


class Language(RowStep):
    """Drops rows that are surely in none of the languages to keep; writes the one found to the column `language`.

    Code, formulas, numbers and a few words alone have no language and drop nothing. In a conversation the prompt and
    the answer must each be in a language to keep, except where the prompt asks for another one, as translations do.
    """

    keep: list[str] = Field(default=["zh", "en"], min_length=1)
    """Codes of the languages to keep (ISO 639-1), such as zh, en, de, ja."""
    of: Literal["conversation", "prompt", "answer"] = "conversation"
    """What is judged: what users ask and assistants answer, or only one of the two."""
    min_share: float = Field(default=0.5, gt=0, le=1)
    """The share of the words that must be in the languages to keep."""

    @field_validator("keep")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for code in value:
            if not is_language(code):
                names = {"chinese": "zh", "english": "en", "german": "de", "french": "fr", "japanese": "ja"}
                hint = did_you_mean(names.get(code.lower(), code.lower()[:2]), names.values())
                raise ValueError(
                    f"no language '{code}'{hint}; write two letters, such as zh for Chinese, en for English"
                )
        return value

    @cached_property
    def _kept(self) -> frozenset[str]:
        return frozenset(self.keep)

    def look(self, example: Example) -> Example | Rejection:
        return self.look_all([example])[0]

    def look_all(self, examples: Sequence[Example]) -> Sequence[Example | Rejection]:
        asked = answered = [NONE] * len(examples)
        if self.of != "answer":
            asked = identify_all([_said_by(_USERS, example) for example in examples], self._kept)
        if self.of != "prompt":
            answered = identify_all([_said_by(_ANSWERS, example) for example in examples], self._kept)
        return list(map(self._judge, examples, asked, answered))

    def _judge(self, example: Example, asked: Found, answered: Found) -> Example | Rejection:
        kept = self._kept
        words = asked.words | answered.words
        if not words.keys() <= kept and not (self._fits(asked) and self._fits(answered)):
            problem = self._problem(example, asked, answered)
            if problem is not None:
                return problem
        if not words or "language" in example.meta:
            return example
        language = max(words, key=lambda code: words[code]) if len(words) > 1 else next(iter(words))
        meta = {**example.meta, "language": language}
        # replace() takes five times as long
        return Example(example.messages, example.origin, example.tools, meta, example.rejected)

    def _fits(self, found: Found) -> bool:
        if found.words.keys() <= self._kept:
            return True
        return sum(found.words.get(code, 0) for code in self._kept) >= self.min_share * sum(found.words.values())

    def _problem(self, example: Example, asked: Found, answered: Found) -> Rejection | None:
        """Why a row in which the prompt or the answer does not fit leaves after all; None where a task explains it."""
        of, found = ("prompt", asked) if not self._fits(asked) else ("answer", answered)
        if self.of == "conversation":
            wanted = any(_ASKED.search(message.content) for message in example.messages if message.role == "user")
            if of == "answer" and wanted:
                return None
            instruction = sum(asked.words.get(code, 0) for code in self.keep) >= FEW_WORDS
            if of == "prompt" and answered.words and self._fits(answered) and (wanted or instruction):
                return None
        language = max(found.words, key=lambda code: found.words[code])
        evidence = {"language": language, "share": round(found.words[language] / sum(found.words.values()), 3),
                    "confidence": round(found.confidence, 3)}  # fmt: skip
        return Rejection(f"the {of} is not in {' or '.join(self.keep)}", evidence)


def _said_by(roles: tuple[str, ...], example: Example) -> str:
    texts = [message.content for message in example.messages if message.role in roles]
    return texts[0] if len(texts) == 1 else "\n".join(texts)
