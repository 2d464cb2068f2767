"""From tokens that come one by one to text that may be shown: whole characters, no reasoning, no stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneloop.render.tool_calls import SPECIAL

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer

BROKEN = "\ufffd"  # what decoders write for the beginning of a character whose other bytes are still to come


class Spoken:
    """Reasoning and text of one answer as it grows; at its end what the renderer's `answer_parts` gives, up to a stop
    text. With `calls`, special tokens that mark tool calls stay in the text."""

    def __init__(self, renderer: Renderer, stop: Sequence[str] = (), *, calls: bool = False) -> None:
        self._tokenizer, self._answer = renderer.tokenizer, renderer.answer_stream(SPECIAL if calls else ())
        self._stop = [text for text in stop if text]
        self._ids: list[int] = []
        self._begin = self._read = 0
        self._held = ""
        self.stopped = False
        """Whether a stop text came: there is no more text after it."""

    def add(self, token: int) -> tuple[str, str]:
        """The reasoning and the text that may be shown because of one more token; often none yet."""
        self._ids.append(token)
        reasoning, text = self._answer.push(self._decoded(last=False))
        return reasoning, self._shown(text)

    def end(self) -> tuple[str, str]:
        """What was held back, when no more tokens come."""
        first, last = self._answer.push(self._decoded(last=True)), self._answer.end()
        text = self._shown(first[1] + last[1])
        rest, self._held = self._held, ""
        return first[0] + last[0], text + rest

    def _decoded(self, last: bool) -> str:
        """New text. Decoded behind a few tokens that are known already: some tokenizers drop a blank at a beginning."""
        before = self._text(self._ids[self._begin : self._read])
        after = self._text(self._ids[self._begin :])
        if len(after) <= len(before) or (after.endswith(BROKEN) and not last):
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _shown(self, text: str) -> str:
        """What of it cannot be the beginning of a stop text; sets `stopped` where one is complete."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        beginnings = (stop[:length] for stop in self._stop for length in range(len(stop)))
        held = max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]
