"""Text to ids with exact borders: where a prompt ends and an answer begins, the ids are those of the prompt alone.

Knows nothing of chats. Legend: T tokens; `starts` and `ends` are character offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tuneloop.core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

BEFORE = ("\n", "a", "0", ".", "。")


class Encoded:
    """A text's `ids` [T] with the character offsets of each. All offsets are taken out of the tokenizer's own result
    only where a few questions to it do not suffice: as Python objects they take as long as tokenising."""

    def __init__(self, text: str, ids: list[int], source: Encoding) -> None:
        self.text, self.ids, self._source = text, ids, source

    def token_at(self, char: int) -> int:
        """The first token that begins at or after a character."""
        found = self._source.char_to_token(char)
        if found is not None and self._span(found)[0] == char and (not found or self._span(found - 1)[0] < char):
            return found
        return int(self._starts.searchsorted(char))

    def start(self, index: int) -> int:
        """The character at which a token begins."""
        return self._span(index)[0]

    def end(self, index: int) -> int:
        """The character before which a token ends."""
        return self._span(index)[1]

    def _span(self, index: int) -> tuple[int, int]:
        return self._source.token_to_chars(index) or self._source.offsets[index]

    @cached_property
    def _starts(self) -> NDArray[np.int32]:
        import numpy as np

        return np.maximum.accumulate(np.asarray(self._source.offsets, np.int32).reshape(-1, 2)[:, 0])


class Joined(Encoded):
    """A text whose tokens are followed by those of another one, encoded alone; the latter have one place together."""

    def __init__(self, head: Encoded, text: str, ids: list[int]) -> None:
        self.text, self.ids, self._head = head.text + text, head.ids + ids, head

    def token_at(self, char: int) -> int:
        return self._head.token_at(char) if char <= len(self._head.text) else len(self.ids)

    def _span(self, index: int) -> tuple[int, int]:
        if index < len(self._head.ids):
            return self._head._span(index)
        return len(self._head.text), len(self.text)


class Encoder:
    """A fast tokenizer without its special tokens added. Raises ModelError for a tokenizer that has no offsets."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} gives no character offsets; "
                "exact loss weights need a `tokenizer.json` (convert it with transformers' AutoTokenizer)"
            )
        self.tokenizer = tokenizer
        # The text after such a token is tokenised as if nothing stood before it, whatever comes before it.
        self._anchors = frozenset(
            number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special and not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        )
        self._heads: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Many texts at once."""
        if not texts:
            return []
        batch = self._call(list(texts))
        return list(map(Encoded, texts, batch["input_ids"], batch.encodings))

    def ids(self, text: str) -> list[int]:
        return self._call(text)["input_ids"]

    def border(self, encoded: Encoded, char: int) -> int | None:
        """How many tokens the text before `char` has, if they are exactly the tokens of that text alone, else None."""
        index = encoded.token_at(char)
        if index and encoded.end(index - 1) > char:
            return None
        ids = encoded.ids
        first = next((i for i in range(index - 1, -1, -1) if ids[i] in self._anchors), None)
        if first is None:
            alone = self.ids(encoded.text[:char])
            first = 0
        else:
            head = encoded.text[encoded.start(first) : char]
            alone = self._heads.get(head)
            if alone is None:
                alone = self.ids(head)
                if len(self._heads) < 1000:  # mostly the heads of assistant turns: a handful, seen again and again
                    self._heads[head] = alone
        return index if alone == ids[first:index] else None

    def join(self, prompt: str, answer: str) -> Encoded:
        """ids(prompt) followed by the ids of the answer, for texts whose tokens would merge across the border."""
        return Joined(self.encode([prompt])[0], answer, self.continuation(answer))

    def continuation(self, text: str) -> list[int]:
        """The ids of a text that continues another one.

        SentencePiece writes a space before the first word of a text, so something must stand before it that does not
        merge with it.
        """
        for before in BEFORE:
            alone, both = self.ids(before), self.ids(before + text)
            if both[: len(alone)] == alone:
                return both[len(alone) :]
        return self.ids(text)

    def _call(self, text: str | list[str], **options: Any) -> Any:
        return self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False, **options)
