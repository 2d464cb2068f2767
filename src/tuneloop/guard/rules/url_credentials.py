"""Rule `url_credentials`: user names, passwords and tokens inside URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.digits import redraw
from tuneloop.guard.rules import Draw, Rule, Span, Words

PLACEHOLDER = re.compile(r"example|your|xxxx|\*\*|placeholder|changeme|[<>{}$]|\.\.\.", re.IGNORECASE)
_USER = re.compile(r"://([^\s\0/@:\"'<>]{1,128}:[^\s\0/@\"'<>]{1,256}@[A-Za-z0-9\-.]+)")
_URL = re.compile(r"://[^\s\"'<>]+")
_TOKEN = re.compile(
    r"[?&#;](?:access_token|auth_token|token|api_?key|key|secret|client_secret|password|passwd|pwd|auth|sig|signature"
    r"|session|sessionid|sid|code)=([A-Za-z0-9_\-.~%+/=]{8,})",
    re.IGNORECASE,
)


class UrlCredentials(Rule):
    """`user:password@host` in a URL, and values of parameters such as `token` and `api_key`.

    Placeholders (YOUR_KEY, <token>, words without a digit) are none.
    """

    WORDS: ClassVar[Words] = ("://",)

    def find(self, text: str) -> Iterable[Span]:
        for match in _USER.finditer(text):
            if not PLACEHOLDER.search(match[1]):
                yield Span(*match.span(1))
        for url in _URL.finditer(text):
            for match in _TOKEN.finditer(url[0]):
                if not PLACEHOLDER.search(match[1]) and any(character.isdigit() for character in match[1]):
                    yield Span(url.start() + match.start(1), url.start() + match.end(1))

    def surrogate(self, text: str, draw: Draw) -> str:
        secret, at, _ = text.partition("@")
        return "example" + redraw(secret[7:], draw.random) + (at and "@example.com")
