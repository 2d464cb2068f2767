"""Normalisation and tokenisation of answers for the metrics, alike for Chinese and English."""

from __future__ import annotations

import re
import string
import unicodedata

ARTICLES = frozenset({"a", "an", "the"})
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)

# One character a token in scripts that are written without spaces between words: CJK ideographs (with extensions and
# compatibility forms), the ideographic iteration mark and zero, kana, bopomofo. Hangul is written with spaces.
UNSPACED = (
    "\u3005\u3007\u3041-\u309f\u30a0-\u30ff\u3105-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
TOKEN = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
ONE_UNSPACED = re.compile(rf"[{UNSPACED}]")


def nfkc(text: str) -> str:
    """Unicode NFKC: full-width letters and digits become the usual ones, so １２ equals 12 and Ａ equals A."""
    return unicodedata.normalize("NFKC", text)


def has_unspaced(text: str) -> bool:
    """Whether the text has characters of a script without spaces between words."""
    return ONE_UNSPACED.search(text) is not None


def tokens(text: str) -> list[str]:
    """NFKC, lower case; words, with Chinese and kana by character. Punctuation separates and is left out."""
    return TOKEN.findall(nfkc(text).casefold())


def squad_tokens(text: str) -> list[str]:
    """As `tokens`, but ASCII punctuation joins what it separates, as in SQuAD's script: 3.5 is `35`, don't `dont`.

    Deleted before NFKC: a full-width comma between two words is a separator and must not become one that joins.
    """
    return tokens(re.sub(r"(?<=\d)\.(?=\d)", "", nfkc(text.translate(ASCII_PUNCTUATION))))


def without_articles(words: list[str]) -> list[str]:
    """The words without English articles; unchanged where nothing else is left."""
    kept = [word for word in words if word not in ARTICLES]
    return kept or words
