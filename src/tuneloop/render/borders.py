"""Text to ids with exact borders: where a prompt ends and an answer begins, the ids are those of the prompt alone.

Knows nothing of chats. Legend: T tokens; `starts` and `ends` are character offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

BEFORE = ("\n", "a", "0", ".", "。")


@dataclass(frozen=True, eq=False)
class Encoded:
    """A text's ids [T] with the character offsets [T] of each."""

    text: str
    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]

    def token_at(self, char: int) -> int:
        """The first token that begins at or after a character."""
        return int(self.starts.searchsorted(char))


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
        """Many texts at once; the tokenizer works on them in parallel."""
        import numpy as np

        if not texts:
            return []
        batch = self._call(list(texts), return_offsets_mapping=True)
        out: list[Encoded] = []
        for text, ids, offsets in zip(texts, batch["input_ids"], batch["offset_mapping"], strict=True):
            pairs = np.asarray(offsets, np.int32).reshape(-1, 2)
            starts = np.maximum.accumulate(pairs[:, 0]) if len(pairs) else pairs[:, 0]
            out.append(Encoded(text, np.asarray(ids, np.int32), starts, pairs[:, 1]))
        return out

    def ids(self, text: str) -> list[int]:
        return self._call(text)["input_ids"]

    def border(self, encoded: Encoded, char: int) -> int | None:
        """How many tokens the text before `char` has, if they are exactly the tokens of that text alone, else None."""
        index = encoded.token_at(char)
        if index and encoded.ends[index - 1] > char:
            return None
        first = next((i for i in range(index - 1, -1, -1) if int(encoded.ids[i]) in self._anchors), None)
        if first is None:
            alone = self.ids(encoded.text[:char])
            first = 0
        else:
            head = encoded.text[encoded.starts[first] : char]
            alone = self._heads.get(head)
            if alone is None:
                alone = self.ids(head)
                if len(self._heads) < 1000:  # mostly the heads of assistant turns: a handful, seen again and again
                    self._heads[head] = alone
        return index if alone == encoded.ids[first:index].tolist() else None

    def join(self, prompt: str, answer: str) -> Encoded:
        """ids(prompt) followed by the ids of the answer, for texts whose tokens would merge across the border."""
        import numpy as np

        head = self.encode([prompt])[0]
        tail = np.asarray(self.continuation(answer), np.int32)
        place = np.full(len(tail), len(prompt), np.int32)
        return Encoded(
            prompt + answer,
            np.concatenate([head.ids, tail]),
            np.concatenate([head.starts, place]),
            np.concatenate([head.ends, np.full(len(tail), len(prompt) + len(answer), np.int32)]),
        )

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
