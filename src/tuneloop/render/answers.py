"""Generated ids back to an answer: the inverse of what rendering makes a model learn."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING

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

    def _plain(self, text: str) -> str:
        return self._special.sub("", text)
