"""Reads a page as a browser would and finds what no page of ours may have."""

from __future__ import annotations

from html.parser import HTMLParser


class Checker(HTMLParser):
    """Finds scripts, event handlers, links to elsewhere, and tags that do not close."""

    VOID = {"meta", "line", "circle", "path", "rect", "br", "img", "link", "hr"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "href"), (tag, name, value)
        if tag not in self.VOID or tag in ("path", "rect"):  # these two may hold a title
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert tag in self.VOID
        if tag in ("path", "rect"):
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def check(page: str) -> set[str]:
    """The page's tags; fails where it is not whole, safe and self-contained."""
    checker = Checker()
    checker.feed(page)
    assert checker.stack == []
    assert "script" not in checker.tags and "<script" not in page
    assert "http://" not in page and "https://" not in page and "@import" not in page
    assert "prefers-color-scheme" in page and "@media print" in page
    return checker.tags
