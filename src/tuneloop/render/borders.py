"""Text to ids with exact borders: where a prompt ends and an answer begins, the ids are those of the prompt alone.

Knows nothing of chats. Legend: T tokens; `starts` and `ends` are character offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from tuneloop.core.errors import ModelError
from tuneloop.render.byte_pairs import BytePairs, Spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

BEFORE = ("\n", "a", "0", ".", "。")
FEW = 16
MANY, AN_ENTRY = 150_000, 26
"""Characters from which on it pays to look for a faster way: those of the time in which its library is loaded, and each
entry of the vocabulary is looked at (a second for 150,000)."""


class Places(Protocol):
    """Where the tokens of a text stand in it."""

    def token_at(self, char: int) -> int:
        """The first token that begins at or after a character."""
        ...

    def of(self, index: int) -> tuple[int, int]:
        """The characters from which and before which a token stands; a part of one counts as all of it."""
        ...


class Offsets:
    """As the tokenizer tells them. All are taken out of its result only where a few questions to it do not suffice: as
    Python objects they take as long as tokenising."""

    def __init__(self, source: Encoding) -> None:
        self._source = source

    def token_at(self, char: int) -> int:
        """As Places."""
        found = self._source.char_to_token(char)
        if found is not None and self.of(found)[0] == char and (not found or self.of(found - 1)[0] < char):
            return found
        return int(self._starts.searchsorted(char))

    def of(self, index: int) -> tuple[int, int]:
        """As Places."""
        return self._source.token_to_chars(index) or self._source.offsets[index]

    @cached_property
    def _starts(self) -> NDArray[np.int32]:
        import numpy as np

        return np.maximum.accumulate(np.asarray(self._source.offsets, np.int32).reshape(-1, 2)[:, 0])


class Joint:
    """Those of a text that is followed by the tokens of another one, encoded alone; these have one place together."""

    def __init__(self, head: Encoded, text: str, count: int) -> None:
        self._head, self._end, self._count = head, len(head.text) + len(text), count

    def token_at(self, char: int) -> int:
        """As Places."""
        return self._head.places.token_at(char) if char <= len(self._head.text) else self._count

    def of(self, index: int) -> tuple[int, int]:
        """As Places."""
        return self._head.places.of(index) if index < len(self._head.ids) else (len(self._head.text), self._end)


@dataclass(frozen=True)
class Encoded:
    """A text with its `ids` [T]."""

    text: str
    ids: NDArray[np.int32]
    places: Places


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
        self._read, self._pairs, self._making = 0, None, Lock()
        self._many = MANY + AN_ENTRY * len(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Many texts at once; from several threads."""
        if not texts:
            return []
        pairs = self._pairs
        if pairs is None:
            self._read += sum(map(len, texts))
            found = self._slowly(texts)
            if self._read > self._many and self._making.acquire(blocking=False):  # once, and never released
                self._pairs = _alike(self.tokenizer, found)
            return found
        read = pairs.read(texts)
        slow = iter(self._slowly([text for text, ids in zip(texts, read, strict=True) if ids is None]))
        fast = [(text, ids) for text, ids in zip(texts, read, strict=True) if ids is not None]
        spans = Spans.of_all([text for text, _ in fast], [ids for _, ids in fast], pairs.sizes)
        return [
            next(slow) if ids is None else Encoded(text, ids, next(spans))
            for text, ids in zip(texts, read, strict=True)
        ]

    def _slowly(self, texts: Sequence[str]) -> list[Encoded]:
        """By the tokenizer itself."""
        import numpy as np

        if not texts:
            return []
        batch = self._call(list(texts))
        ids = (np.asarray(ids, np.int32) for ids in batch["input_ids"])
        return list(map(Encoded, texts, ids, map(Offsets, batch.encodings)))

    def ids(self, text: str) -> list[int]:
        return self._call(text)["input_ids"]

    def border(self, encoded: Encoded, char: int) -> int | None:
        """How many tokens the text before `char` has, if they are exactly the tokens of that text alone, else None."""
        index = encoded.places.token_at(char)
        if index and encoded.places.of(index - 1)[1] > char:
            return None
        near = self._anchor(encoded.ids, index)
        if near is None:
            return index if self.ids(encoded.text[:char]) == encoded.ids[:index].tolist() else None
        first, inside = near
        head = encoded.text[encoded.places.of(first)[0] : char]
        alone = self._heads.get(head)
        if alone is None:
            alone = self.ids(head)
            if len(self._heads) < 1000:  # mostly the heads of assistant turns: a handful, seen again and again
                self._heads[head] = alone
        return index if alone == inside else None

    def _anchor(self, ids: NDArray[np.int32], end: int) -> tuple[int, list[int]] | None:
        """The last anchor before a token, as its place and the ids from there on; mostly it is a few tokens away."""
        for begin in (max(0, end - FEW), 0):
            inside = ids[begin:end].tolist()
            for place in range(len(inside) - 1, -1, -1):
                if inside[place] in self._anchors:
                    return begin + place, inside[place:]
        return None

    def join(self, prompt: str, answer: str) -> Encoded:
        """ids(prompt) followed by the ids of the answer, for texts whose tokens would merge across the border."""
        import numpy as np

        head, ids = self.encode([prompt])[0], self.continuation(answer)
        both = np.concatenate([head.ids, np.asarray(ids, np.int32)])
        return Encoded(prompt + answer, both, Joint(head, answer, len(both)))

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


def _alike(tokenizer: PreTrainedTokenizerBase, found: Sequence[Encoded]) -> BytePairs | None:
    """The faster way, where there is one that reads these texts as the tokenizer did."""
    pairs = BytePairs.of(tokenizer)
    read = [] if pairs is None else pairs.read([one.text for one in found])
    if any(ids is not None and ids.tolist() != one.ids.tolist() for ids, one in zip(read, found, strict=False)):
        return None
    return pairs
