"""Regular expressions that people wrote, on texts of any kind: no search takes longer than PATIENCE."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

PATIENCE = 2.0  # seconds for one search


@lru_cache(maxsize=256)
def compiled(pattern: str, ignore_case: bool = False) -> Any:
    """The compiled pattern. Raises ValueError saying what is wrong with it."""
    import regex

    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        raise ValueError(f"not a regular expression ({error}): {pattern!r}") from None


def found(pattern: str, text: str, *, ignore_case: bool = False, whole: bool = False) -> bool:
    """Whether the pattern is found in the text, or is the `whole` of it.

    Raises ValueError for what is no pattern, and TimeoutError saying which one is too slow.
    """
    search = compiled(pattern, ignore_case).fullmatch if whole else compiled(pattern, ignore_case).search
    try:
        return search(text, timeout=PATIENCE) is not None
    except TimeoutError:
        raise TimeoutError(
            f"{pattern!r} took more than {PATIENCE:g} s on one text: its repeats stand inside one another, such as "
            "(a+)+; write it without the inner one"
        ) from None
