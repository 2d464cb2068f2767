"""The form in which texts are compared, and keys of what rows say, for many at once.

As `texts.words` has them for one text and one row: most characters have one character as their form, which a table
knows, and a text of others is sent there.
"""

from __future__ import annotations

import ctypes
import hashlib
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message
from tuneloop.data.compiled import EXAMPLE, Twofold, address
from tuneloop.texts import words
from tuneloop.texts.words import content_key, key_of_turns

_FEW = 16
"""So many texts take as long one by one."""
_SPACE, _NONE = np.uint32(ord(" ")), np.uint32(2**32 - 1)
_BLOCKS = (range(0x3400), range(0xA000, 0xAC00), range(0xD7A4, 0xD800), range(0xE000, 0x10000), range(0x1F000, 0x1FB00))
"""Code points that are asked one by one; the blocks of Han and Hangul between them stay as they are."""
_SAME = ((0x3400, 0xA000), (0xAC00, 0xD7A4))
_JAMO = range(0x1160, 0x1200)
"""They make one character with the letter before them."""


def normalise(texts: Sequence[str]) -> list[str]:
    """`words.normalise` of each text, which that does not remember."""
    return _forms(texts)


def content_keys(examples: Sequence[Example]) -> list[bytes]:
    """`words.content_key` of each Example."""
    plain = [not (one.tools or one.rejected) and _all_texts(one.messages) for one in examples]
    said = _said([one.messages if easy else () for one, easy in zip(examples, plain, strict=True)], b"[[%b],[]]")
    return [_digest(data) if data else content_key(one) for one, data in zip(examples, said, strict=True)]


def prompt_keys(prompts: Sequence[Sequence[Message]]) -> list[bytes]:
    """`words.prompt_key` of Examples with these prompts, or documents."""
    said = _said(prompts, b"[%b]")
    return [_digest(data) if data else key_of_turns(one) for one, data in zip(prompts, said, strict=True)]


def _all_texts(messages: Sequence[Message]) -> bool:
    return all(not one.tool_calls and one.reasoning is None and one.train is None for one in messages)


def _said(conversations: Sequence[Sequence[Message]], frame: bytes) -> list[bytes]:
    """Role and normalised content of the messages of each conversation as JSON within a frame; b"" where it is empty,
    and for all of them where a text has half of a surrogate pair."""
    try:
        texts = iter(_quoted([message.content for one in conversations for message in one]))
    except TypeError:
        return [b""] * len(conversations)
    roles = [tuple([message.role for message in one]) for one in conversations]
    return [_framed(frame, one) % tuple(islice(texts, len(one))) if one else b"" for one in roles]


@lru_cache(maxsize=1_024)
def _framed(frame: bytes, roles: tuple[str, ...]) -> bytes:
    """The frame around turns of these roles, whose texts are still to come."""
    return frame % ",".join([f'["{role}","%b"]' for role in roles]).encode()


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _by_arrays(texts: Sequence[str]) -> list[str]:
    out = list[str | None]([None] * len(texts))
    for ascii in (True, False):  # apart, so that a text of one byte a character is not widened for the sake of others
        rows = [row for row, text in enumerate(texts) if text.isascii() == ascii]
        if len(rows) > _FEW:
            for row, form in zip(rows, _together([texts[row] for row in rows]), strict=True):
                out[row] = form
    return _whole(texts, out)


def _together(texts: Sequence[str]) -> list[str | None]:
    """The normalised texts, of which there is one at least, by one look at the table for all characters; None where
    that cannot tell."""
    plain = [text.replace("…", "...") for text in texts]  # the only common sign that becomes several
    codes = np.frombuffer("\n".join([*plain, ""]).encode("utf-32-le", "surrogatepass"), "<u4")
    sizes = np.array(list(map(len, plain)), np.int64) + 1
    ends = np.cumsum(sizes)
    forms = np.take(_table(), codes, mode="clip")
    odd = np.unique(np.searchsorted(ends, np.flatnonzero(forms == _NONE), "right"))
    space = forms == _SPACE
    kept = ~space  # of spaces in a row, line feeds behind the texts included, the first
    kept[1:] |= ~space[:-1]
    lengths = np.add.reduceat(kept.view(np.uint8), ends - sizes, dtype=np.int64)
    forms = forms[kept]
    forms[forms == _NONE] = _SPACE
    whole, stops = forms.tobytes().decode("utf-32-le"), np.cumsum(lengths)
    borders = zip((stops - lengths).tolist(), stops.tolist(), strict=True)
    out: list[str | None] = [whole[start : stop - 1] if stop > start else "" for start, stop in borders]
    for row in odd.tolist():
        out[row] = None
    return out


def _compiled(library: ctypes.CDLL, texts: list[str]) -> list[str]:
    out, table = list[str | None]([None] * len(texts)), _table()
    library.forms(texts, address(table), len(table), out, False)
    return _whole(texts, out)


def _quoted_compiled(library: ctypes.CDLL, texts: list[str]) -> list[bytes]:
    out, table = list[bytes | None]([None] * len(texts)), _table()
    library.forms(texts, address(table), len(table), out, True)
    odd = iter(jsonl.escaped([words.normalise(text) for text, form in zip(texts, out, strict=True) if form is None]))
    return [next(odd) if form is None else form for form in out]


def _whole(texts: Sequence[str], forms: Sequence[str | None]) -> list[str]:
    """The forms, and those that the table could not tell."""
    return [words.normalise(text) if form is None else form for text, form in zip(texts, forms, strict=True)]


_forms = Twofold(_by_arrays, _compiled)
_quoted = Twofold(lambda texts: jsonl.escaped(normalise(texts)), _quoted_compiled, EXAMPLE)
"""The normalised texts as `jsonl.escaped` has them; raises as that does."""


@cache
def _table() -> NDArray[np.uint32]:
    """For each code point its form, where that is one character which leaves its neighbours alone; else _NONE."""
    table = np.full(_BLOCKS[-1].stop + 1, _NONE)
    for start, stop in _SAME:
        table[start:stop] = np.arange(start, stop)
    for block in _BLOCKS:
        for code in block:
            wide = unicodedata.normalize("NFKC", chr(code))
            form = wide.casefold()
            alone = len(wide) == len(form) == 1 and unicodedata.category(wide)[0] != "M" and ord(wide) not in _JAMO
            if alone:
                table[code] = _SPACE if form.isspace() else ord(form)
    return table
