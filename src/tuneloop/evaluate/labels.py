"""Labels read out of free text, alike for Chinese and English; knows nothing of metrics."""

from __future__ import annotations

import re
from collections.abc import Collection

from tuneloop.evaluate.text import has_unspaced, nfkc


def normal_label(text: str, ignore_case: bool = True) -> str:
    """The form in which labels are compared: NFKC, one blank between words, case folded where it does not count."""
    text = " ".join(nfkc(text).split())
    return text.casefold() if ignore_case else text


def named_labels(text: str, labels: Collection[str]) -> set[str]:
    """The labels that a normal text names, longest first, each taking its place away from shorter ones.

    A label written without spaces (Chinese) is found anywhere, any other as a whole word.
    """
    found: set[str] = set()
    for label in sorted(labels, key=lambda label: (-len(label), label)):
        if label in text:
            text, count = re.subn(_pattern(label), " ¤ ", text)  # a mark that is no word, where nothing matches again
            if count:
                found.add(label)
    return found


def _pattern(label: str) -> str:
    """Whole words only at an end that is a letter or digit of a script with spaces."""
    start = r"(?<![^\W_])" if _spaced(label[0]) else ""
    end = r"(?![^\W_])" if _spaced(label[-1]) else ""
    return start + re.escape(label) + end


def _spaced(character: str) -> bool:
    return character.isalnum() and not has_unspaced(character)
