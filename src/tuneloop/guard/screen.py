"""Which of many texts match a pattern, by the regular expressions of Rust: a twentieth of the price of Python's, where
most texts do not match. They know no lookarounds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray


def column(texts: Sequence[str] | pl.Series) -> pl.Series:
    """The texts, which several patterns can be looked for in; halves of surrogate pairs, which no column can hold,
    become U+FFFD."""
    import polars as pl

    if isinstance(texts, pl.Series):
        return texts
    try:
        return pl.Series(texts, dtype=pl.String)
    except UnicodeEncodeError:
        return pl.Series([text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts])


def matching(texts: Sequence[str] | pl.Series, *patterns: str) -> NDArray[np.bool_]:
    """Which texts match all the patterns; each is looked for only where those before it are."""
    import numpy as np

    left, rows = column(texts), np.arange(len(texts))
    for number, pattern in enumerate(patterns, 1):
        found = left.str.contains(pattern)
        rows = rows[found.to_numpy()]
        left = left.filter(found) if number < len(patterns) else left
    out = np.zeros(len(texts), bool)
    out[rows] = True
    return out


def matching_any(texts: Sequence[str] | pl.Series, groups: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Which texts match all patterns of one of the groups, in one query: each takes 0.1 ms, whatever it does."""
    import polars as pl

    text, found = pl.col("text"), pl.lit(False)
    for group in groups:
        found |= pl.all_horizontal(pl.lit(True), *map(text.str.contains, group))
    # without a group the answer would have one row
    return pl.DataFrame({"text": column(texts)}).select(text.is_null() | found).to_series().to_numpy()


@cache
def is_plain(pattern: str) -> bool:
    """Whether Rust understands the pattern, and so means the same by it as Python."""
    import polars as pl

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError:
        return False
    return True
