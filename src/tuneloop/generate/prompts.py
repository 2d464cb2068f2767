"""What an answer needs before it can begin: its prompt as tokens, its room, what its text follows. Knows no queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneloop.core.errors import ModelError
from tuneloop.generate.constraint import Grammars
from tuneloop.generate.live import Piece, Usage
from tuneloop.generate.rows import Row
from tuneloop.generate.sampling import source
from tuneloop.generate.spoken import Spoken
from tuneloop.render.rendered import Unrenderable

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer


class Prompts:
    """Reads prompts for a model whose prompt and answer together have at most `context` tokens, of `words` kinds."""

    def __init__(self, renderer: Renderer, context: int | None, words: int) -> None:
        self._renderer, self._context, self._words = renderer, context, words
        self._grammars: Grammars | None = None
        longest = max(map(len, renderer.tokenizer.get_vocab()))
        self._most_characters = None if context is None else context * longest

    def ready(self, row: Row) -> bool:
        """Makes a row ready; one that cannot be answered is told why (False). From one thread at a time."""
        try:
            self._read(row)
        except (Unrenderable, ModelError) as error:
            why = error.reason if isinstance(error, Unrenderable) else str(error)
            row.told(Piece("", finish="refused", usage=Usage(len(row.prompt), 0, 0), why=why))
            return False
        except Exception as error:  # noqa: BLE001 - said to whoever asked; the thread goes on
            row.told(Piece("", finish="error", usage=Usage(0, 0, 0), why=f"{type(error).__name__}: {error}"))
            return False
        return True

    def _read(self, row: Row) -> None:
        ask = row.ask
        characters = sum(len(message.content) for message in ask.request.messages)
        if self._most_characters is not None and characters > self._most_characters:  # not worth a second of tokenising
            raise ModelError(f"the prompt has {characters:,} characters, the model's context {self._context} tokens")
        row.prompt = self._renderer.prompt(ask.request.messages, ask.request.tools)
        row.room = ask.decoding.max_new_tokens
        if self._context is not None:
            row.room = min(row.room, self._context - len(row.prompt))
        if not row.prompt or row.room < 1:
            raise ModelError(f"the prompt has {len(row.prompt)} tokens, the model's context {self._context}")
        if ask.schema is not None:
            row.constraint = self._constraints().start(ask.schema)
        row.spoken = Spoken(self._renderer, ask.stop, calls=bool(ask.request.tools))
        row.random = source(ask.request.seed, row.prompt)

    def _constraints(self) -> Grammars:
        if self._grammars is None:
            self._grammars = Grammars(self._renderer.tokenizer, self._words, self._renderer.stop_ids)
        return self._grammars
