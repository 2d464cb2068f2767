"""texts.c, compiled at the user's place: what is asked of every character of many texts, without joining them.

Where there is no gcc, or what it makes differs from the numpy forms on a few odd texts, those are used: they give the
same, in two to six times the time. Knows none of the functions; their modules say what they are.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.models import native

R = TypeVar("R")
SOURCE = Path(__file__).with_name("texts.c")
WORTH = 500
"""Texts at once, below which nothing is compiled or loaded for them alone."""
EXAMPLE = [
    *("", " ", "\n\n", "a", "中", "ab cd", "3.14-x’s", " The  Quick\tBrown fox's 1,000 cafés… ", "don't\x00"),
    *("今天天气很好，我们去公园吧。", "中文ab", "a中文", "中a", "カタカナとひらがな", "한국어 텍스트"),
    *("Ünïcödé ŉ İ ß ﬁ ½", "e\u0301\u0345 \u3000", "👩\u200d👧 😀", "豈㐀〇", "\x00\x07\x0b\x7f\"\\"),
    *("１２３ＡＢＣ", "…", "и так: далее", "مرحبا", "long 长 " * 300),
]  # fmt: skip
"""Both forms of a function must give the same for these. Rare planes are left to the tests: their tables take long."""
HALVES = ["\ud800", "x\udfff y"]
"""And for these, unless it knows no halves of surrogate pairs."""


class Twofold(Generic[R]):
    """A function of some texts in two forms that give the same: `own`, in numpy, and one that calls the library."""

    def __init__(
        self,
        own: Callable[[Sequence[str]], R],
        compiled: Callable[[ctypes.CDLL, list[str]], R],
        example: Sequence[str] = (*EXAMPLE, *HALVES),
    ) -> None:
        self.own, self._compiled, self._example = own, compiled, list(example)

    def __call__(self, texts: Sequence[str]) -> R:
        return (self.own if len(texts) < WORTH and not _is_loaded() else self.fastest)(texts)

    @functools.cached_property
    def fastest(self) -> Callable[[Sequence[str]], R]:
        """The compiled form, or `own` where there is none or it differs."""
        library = _library()
        if library is None or not _equal(self._compiled(library, self._example), self.own(self._example)):
            return self.own
        return lambda texts: self._compiled(library, list(texts))


def address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    """Where the numbers of a contiguous array stand, which must live as long as they are used."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = native.load(SOURCE, of_python=True)
    except native.Unbuilt:
        return None
    texts, array, points = ctypes.py_object, ctypes.c_void_p, ctypes.c_uint32
    library.words.argtypes = [texts, array, points, array]
    library.writings.argtypes = [texts, array, points, array, ctypes.c_int]
    library.forms.argtypes = [texts, array, points, ctypes.py_object, ctypes.c_int]
    library.hashes.argtypes = [texts, array, array]
    library.signatures.argtypes = [texts, array, array]
    for function in (library.forms, library.hashes, library.signatures):
        function.restype = None
    return library


def _is_loaded() -> bool:
    return bool(_library.cache_info().currsize)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
