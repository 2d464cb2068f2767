"""Markdown that shows any text as it is."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence


def plain(text: str) -> str:
    """One line of Markdown that shows the text as it is."""
    escaped = "".join("\\" + c if c in "\\`*_[]<>|#" else c for c in text)
    return " ".join(escaped.split())


def entities(text: str) -> str:
    """Text for a cell of any Markdown that HTML is made of: entities mean nothing in it, so HTML stays text too."""
    return "<br>".join(
        "".join(f"&#{ord(c)};" if c in string.punctuation else c for c in line) for line in text.splitlines()
    )


def code(text: str) -> str:
    """A code span that holds any text: its fence is longer than every run of backticks inside."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> list[str]:
    """A table's lines; all cells are plain text. `right` says which columns hold numbers."""
    marks = ["---:" if index < len(right) and right[index] else "---" for index in range(len(head))]
    lines = [head, *rows]
    body = [f"| {' | '.join(plain(cell) for cell in line)} |" for line in lines]
    return [body[0], f"|{'|'.join(marks)}|", *body[1:]]
