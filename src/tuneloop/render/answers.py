"""Generated ids back to an answer: the inverse of what rendering makes a model learn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from tuneloop.render.chat import THINK_CLOSE, THINK_OPEN, Habits, any_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class AnswerReader:
    """Reads generated ids in the way in which one template writes answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, habits: Habits, stop_ids: frozenset[int]) -> None:
        self._tokenizer, self._habits, self._stop_ids = tokenizer, habits, stop_ids
        self._special = any_of(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)

    def read(self, ids: Iterable[int]) -> tuple[str | None, str]:
        """Reasoning (None where there is none) and answer, up to the first stop token, without special tokens."""
        kept = list(takewhile(lambda number: number not in self._stop_ids, map(int, ids)))
        text = str(self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        opening, close = self._habits.thinking or (THINK_OPEN, THINK_CLOSE)
        reasoning, content = None, text
        begun = bool(self._habits.unwritten)  # the prompt itself opens the block
        if begun or (opening.strip() and text.startswith(opening.rstrip())):
            inside = text.removeprefix(opening.rstrip())
            reasoning, found, content = inside.partition(close.strip())
            # without its end the answer was never reached
            content = content.lstrip("\n") if found else ""
        elif self._habits.opening and text.startswith(self._habits.opening):
            content = text.removeprefix(self._habits.opening)
        reasoning = self._plain(reasoning).strip() or None if reasoning is not None else None
        return reasoning, self._plain(content)

    def stream(self, keep: Collection[str] = ()) -> AnswerStream:
        """The same for an answer that comes in pieces; special tokens named in `keep` stay in it."""
        opening, close = self._habits.thinking or (THINK_OPEN, THINK_CLOSE)
        begun = bool(self._habits.unwritten)
        tokens = (token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special)
        special = any_of(token for token in tokens if token not in keep)
        return AnswerStream(opening.rstrip(), close.strip(), begun, self._habits.opening or "", special)

    def _plain(self, text: str) -> str:
        return self._special.sub("", text)


class AnswerStream:
    """Tells reasoning and answer apart while they come. All pieces together are what `AnswerReader.read` gives, but for
    the white space around reasoning."""

    def __init__(self, opening: str, close: str, begun: bool, prefix: str, special: re.Pattern[str]) -> None:
        self._opening, self._close, self._prefix, self._special = opening, close, prefix, special
        self._text = ""
        self._state: Literal["start", "inside", "after", "plain"] = "inside" if begun else "start"

    def push(self, text: str) -> tuple[str, str]:
        """What of reasoning and answer has become sure by a new piece of text."""
        self._text += text
        reasoning = ""
        if self._state == "start":
            self._begin()
        if self._state == "inside":
            reasoning = self._inside()
        if self._state == "after":
            self._text = self._text.lstrip("\n")
            if self._text:
                self._state = "plain"
        if self._state != "plain":
            return self._special.sub("", reasoning), ""
        text, self._text = self._text, ""
        return self._special.sub("", reasoning), self._special.sub("", text)

    def end(self) -> tuple[str, str]:
        """What was still undecided when the answer ended."""
        text, self._text = self._special.sub("", self._text), ""
        return ("", text) if self._state in ("start", "plain") else (text, "") if self._state == "inside" else ("", "")

    def _inside(self) -> str:
        """The reasoning that is sure: all but what may be the beginning of its end."""
        reasoning, found, rest = self._text.partition(self._close)
        if found:
            self._state, self._text = "after", rest
            return reasoning
        held = max((n for n in range(len(self._close)) if self._text.endswith(self._close[:n])), default=0)
        reasoning, self._text = self._text[: len(self._text) - held], self._text[len(self._text) - held :]
        return reasoning

    def _begin(self) -> None:
        """Whether the text begins with reasoning, with the template's own opening, or with the answer."""
        if self._opening and self._text.startswith(self._opening):
            self._state, self._text = "inside", self._text.removeprefix(self._opening)
        elif any(known and known.startswith(self._text) for known in (self._opening, self._prefix)):
            return
        else:
            self._state, self._text = "plain", self._text.removeprefix(self._prefix)
