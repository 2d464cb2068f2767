"""Rule `secret_key`: keys and tokens of services, private keys, and what a text calls a key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from tuneloop.guard.borders import LINK
from tuneloop.guard.digits import redraw
from tuneloop.guard.rules import Draw, Rule, Span, Words
from tuneloop.guard.rules.url_credentials import PLACEHOLDER

_SHAPES = re.compile(
    r"(?<![0-9A-Za-z_\-])(?:sk-[A-Za-z0-9_\-]{20,}|(?:sk|pk|rk)_(?:live|test)_[0-9A-Za-z]{16,}"  # OpenAI …, Stripe
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{13,40}|AIza[0-9A-Za-z_\-]{35}"  # clouds
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_\-]{20,}|npm_[A-Za-z0-9]{36}"
    r"|hf_[A-Za-z0-9]{30,}|xox[abeprs]-[A-Za-z0-9\-]{10,}|tl-[0-9a-f]{8}-[A-Za-z0-9_\-]{43}"  # …, tuneloop
    r"|eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,})(?![0-9A-Za-z])"  # JSON web tokens
)
_PRIVATE = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\\A-Za-z0-9+/=:,.\-]*?"
    r"(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|(?![\s\\A-Za-z0-9+/=:,.\-]))"
)
_NAMED = re.compile(
    r"(?:密钥|令牌|(?<![a-z])(?:api[ _\-]?key|secret(?:[ _\-]?key)?|access[ _\-]?(?:key|token)"
    rf"|auth[ _\-]?token|bearer)){LINK}([A-Za-z0-9_\-./+=]{{16,}})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"sk-|[spr]k_(?:live|test)_|AKIA|ASIA|LTAI|AKID|AIza|gh[pousr]_|hf_|xox[a-z]-|tl-|eyJ")
_EXAMPLE = "EXAMPLE"


class SecretKey(Rule):
    """Keys by their shape (sk-…, AKIA…, ghp_…, JSON web tokens, private key blocks) or after `api_key`, 密钥.

    Placeholders (YOUR_KEY, EXAMPLE, no digit) are none.
    """

    DIGITS: ClassVar[str | None] = (  # every digit of 15 such characters in a row has six of them on one side
        r"[A-Za-z0-9_\-]{6}|(?<=[A-Za-z0-9_\-]{6}[0-9])"
    )
    WORDS: ClassVar[Words] = (
        *("sk-", "_live_", "_test_", "AKIA", "ASIA", "LTAI", "AKID", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
        *("github_pat_", "glpat-", "npm_", "hf_", "xox", "tl-", "eyJ", "-----BEGIN", "密钥", "令牌"),
        *("ecret", "ECRET", "_token", "_TOKEN", "Token", "earer ", "api_k", "api-k", "api k", "apik", "API k", "API_K"),
        *("apiK", "ApiK", "Api-K", "ccess_", "ccess k", "ccess K", "ccess t", "ccess T"),
    )

    def find(self, text: str) -> Iterable[Span]:
        for match in _PRIVATE.finditer(text):
            if _EXAMPLE not in match[0]:
                yield Span(match.start(), match.end())
        for match in _SHAPES.finditer(text):
            if _is_secret(match[0]):
                yield Span(match.start(), match.end())
        for match in _NAMED.finditer(text):
            if _is_secret(match[1]) and any(character.isalpha() for character in match[1]):
                yield Span(match.start(1), match.end(1))

    def surrogate(self, text: str, draw: Draw) -> str:
        if text.startswith("-----BEGIN "):
            begin = text[: text.index("-----", 11) + 5]
            return f"{begin}\n{_EXAMPLE}\n{begin.replace('BEGIN', 'END')}"
        prefix = _PREFIX.match(text)
        kept = prefix[0] if prefix else ""
        return kept + _EXAMPLE + redraw(text[len(kept) + len(_EXAMPLE) :], draw.random)


def _is_secret(value: str) -> bool:
    return any(character.isdigit() for character in value) and not PLACEHOLDER.search(value)
