"""Byte-level BPE by tiktoken, several times as fast as the tokenizer itself, where it gives the same ids.

Both merge the adjacent pair of the lowest rank, the leftmost first. tiktoken knows no list of merges: it merges any
pair whose bytes are a token. That is the same where ranks are in the order of the ids and each token, as a text of its
own, is merged to itself: a pair of parts that are a token's bytes can only come up on the one way to that token.
Texts are cut into words by another regex engine; characters on which the two may differ are left to the tokenizer.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

LONGEST = 100_000
"""Characters of a text; longer ones are left to the tokenizer."""
SETTLED = re.compile(
    "[\t\n\r -~\u00a0-\u024f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce\u0400-\u0481\u048a-\u0513\u200b-\u200f"
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20b5\u2150-\u2182\u2190-\u23cf\u2460-\u27bf\u3000-\u303d\u3041-\u3096"
    "\u3099-\u30ff\u3105-\u312c\u3400-\u4db5\u4e00-\u9fa5\uac00-\ud7a3\uf900-\ufa2d\ufe00-\ufe0f\uff01-\uffbe"
    "\U0001f300-\U0001faff]*"
)
"""Texts of characters that have been letters, numbers, blanks or neither since Unicode 5: European letters, Chinese,
Japanese, Korean, signs and emoji."""
BORDER = "\ue000"
"""Stands between texts that are read together: for private use, and so never in one of them."""
_GOING_ON = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 with which no character begins."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
OURS = (r"\p{Han}|\p{N}|\r?\n", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
IN_ONE = {
    ("digits", GPT2): r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    OURS: r" ?[\p{L}--\p{Han}]+|\p{Han}|\p{N}|\r?\n|(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?[^\s\p{L}\p{N}\p{Han}]+"
    r"|(?:[\s--\r\n]|\r(?!\n))+(?![^\s\p{N}\p{Han}])|(?:[\s--\r\n]|\r(?!\n))+",
}
"""Cuts that are made one after the other (SmolLM's; the embedded model's), as one: what the first isolates is an end of
the text for the second, whose last blank before a word belongs to that word, and before an end does not."""


@dataclass(frozen=True)
class BytePairs:
    """The merges of a tokenizer, and which texts they are for."""

    core: Any
    special: frozenset[str]
    sizes: NDArray[np.int32]
    """Bytes of each id."""
    absent: bytes
    """Bytes that the vocabulary does not have."""
    composed: bool
    """Whether texts are brought into the form NFC first."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> BytePairs | None:
        """None where it is not known that the ids would be the same: tokenizers of other kinds, or cut otherwise."""
        value = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
        pattern, normalizer = _pattern(value["pre_tokenizer"] or {}), value["normalizer"]
        added = {token["content"]: token["id"] for token in value["added_tokens"]}
        if pattern is None or normalizer not in (None, {"type": "NFC"}) or not _is_plain(value):
            return None
        ranks = _ranks(value["model"], added, tokenizer)
        return None if ranks is None else cls._made(ranks, added, pattern, normalizer is not None)

    @classmethod
    def _made(cls, ranks: dict[bytes, int], added: dict[str, int], pattern: str, composed: bool) -> BytePairs:
        import numpy as np
        import tiktoken

        sizes = np.zeros(max((*ranks.values(), *added.values())) + 1, np.int32)
        special = added | {BORDER: len(sizes)}
        core = tiktoken.Encoding("tuneloop", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)._core_bpe
        for token, number in (*ranks.items(), *((text.encode(), number) for text, number in added.items())):
            sizes[number] = len(token)
        absent = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
        return cls(core, frozenset(special), sizes, absent, composed)

    def read(self, texts: Sequence[str]) -> list[NDArray[np.int32] | None]:
        """The ids [T] of each text, special tokens read; None for a text that the tokenizer itself must read.

        All in one call, which needs no lock of Python's: to get it back after each text would take longer than that.
        """
        import numpy as np

        takes = list(map(self._takes, texts))
        if not any(takes):
            return [None] * len(texts)
        given = BORDER.join(compress(texts, takes))
        ids = np.frombuffer(self.core.encode_to_tiktoken_buffer(given, self.special), np.int32)
        ends = np.flatnonzero(ids == len(self.sizes))
        parts = iter([ids[begin:end] for begin, end in zip([0, *(ends + 1)], [*ends, len(ids)], strict=True)])
        return [next(parts) if taken else None for taken in takes]

    def _takes(self, text: str) -> bool:
        if len(text) > LONGEST or SETTLED.fullmatch(text) is None:
            return False
        if self.composed and not unicodedata.is_normalized("NFC", text):
            return False
        if self.absent:  # tiktoken would panic
            data = text.encode()
            return len(data.translate(None, self.absent)) == len(data)
        return True


class Spans:
    """Where the tokens of a text stand, by the bytes of each."""

    def __init__(self, text: str, ends_T: NDArray[np.int64], before: int) -> None:
        """`ends_T`: the bytes before the end of each token, in several texts of which `before` come earlier."""
        self._text, self._ends, self._before = text, ends_T, before

    @classmethod
    def of_all(
        cls, texts: Sequence[str], ids: Sequence[NDArray[np.int32]], sizes: NDArray[np.int32]
    ) -> Iterator[Spans]:
        """Of several texts with their ids, all at once; `sizes` are the bytes of each id."""
        import numpy as np

        ends = np.cumsum(sizes[np.concatenate([np.zeros(0, np.int32), *ids])], dtype=np.int64)
        first = before = 0
        for text, row in zip(texts, ids, strict=True):
            last = first + len(row)
            yield cls(text, ends[first:last], before)
            before, first = int(ends[last - 1]) if last else 0, last

    def token_at(self, char: int) -> int:
        """The first token that begins at or after a character."""
        if char <= 0:
            return 0
        begin = char if self._text.isascii() else len(self._text[:char].encode())
        return min(int(self._ends.searchsorted(begin + self._before)) + 1, len(self._ends))

    def of(self, index: int) -> tuple[int, int]:
        """The characters from which and before which a token stands; a part of one counts as all of it."""
        begin = int(self._ends[index - 1]) - self._before if index else 0
        end = int(self._ends[index]) - self._before
        if self._text.isascii():
            return begin, end
        return _characters(self._data[: begin + 1]) - 1, _characters(self._data[:end])

    @cached_property
    def _data(self) -> bytes:
        return self._text.encode()


def _characters(data: bytes) -> int:
    """Characters that begin in these bytes of UTF-8."""
    return len(data.translate(None, _GOING_ON))


def _pattern(cuts: Mapping[str, Any]) -> str | None:
    """One regex for all that a tokenizer does to cut a text into words; None where there is none here."""
    parts = cuts.get("pretokenizers", [cuts])
    found = list(map(_part, parts))
    if any(part is None for part in found) or not parts or parts[-1]["type"] != "ByteLevel":
        return None
    patterns = tuple(part for part in found if part)
    return patterns[0] if len(patterns) == 1 else IN_ONE.get(patterns)


def _part(cut: Mapping[str, Any]) -> str | None:
    """The regex of one step; an empty one where it cuts nothing, None where it is not known here."""
    match cut:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": cuts}:
            return GPT2 if cuts else ""
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
            return regex if regex.endswith(r"\s+(?!\S)|\s+") or regex == OURS[0] else None  # leaves out no character
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case _:
            return None


def _is_plain(value: Mapping[str, Any]) -> bool:
    """Whether a tokenizer is BPE and no more, with added tokens that are just their text, none within another."""
    model, added = value["model"], value["added_tokens"]
    extras = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
    if model["type"] != "BPE" or any(model.get(name) for name in extras):
        return False
    if any(token[name] for token in added for name in ("lstrip", "rstrip", "single_word", "normalized")):
        return False
    texts = [token["content"] for token in added]
    return not any(one != other and one in other for one in texts for other in texts)


def _ranks(
    model: Mapping[str, Any], added: Mapping[str, int], tokenizer: PreTrainedTokenizerBase
) -> dict[bytes, int] | None:
    """Bytes → id of all that merges can make; None where the ids do not say in which order they are made."""
    vocabulary, merges = model["vocab"], model["merges"]
    pairs: Iterator[list[str]] = (pair.split(" ") if isinstance(pair, str) else pair for pair in merges)
    made = ["".join(pair) for pair in pairs]
    numbers = [vocabulary[token] for token in made]
    if any(one > other for one, other in pairwise(numbers)):
        return None
    letters = {letter: byte for byte, letter in enumerate(_letters())}
    single = {token: number for token, number in vocabulary.items() if len(token) == 1 and token in letters}
    merge = tokenizer.backend_tokenizer.model.tokenize  # type: ignore[attr-defined]
    whole = {token: number for token, number in zip(made, numbers, strict=True) if token not in added}
    reached = {token: number for token, number in whole.items() if len(merge(token)) == 1}
    return {bytes(letters[letter] for letter in token): number for token, number in (single | reached).items()}


def _letters() -> list[str]:
    """The letter that stands for each byte in vocabularies: itself where it can be seen, else one from 256 on (GPT-2's
    bytes_to_unicode)."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(others)) for byte in range(256)]
