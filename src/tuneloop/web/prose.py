"""Markdown of an answer as HTML that is safe to show. Knows nothing of pages."""

from __future__ import annotations

from functools import cache

from markdown_it import MarkdownIt


@cache
def _reader() -> MarkdownIt:
    # HTML in an answer is shown as text; no images: they would call other servers. Its own rules drop javascript: links
    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")


def to_html(text: str) -> str:
    """An answer, also an unfinished one.

    The browser sanitises once more, and the Content-Security-Policy lets no script and no outside image through.
    """
    return _reader().render(text)
