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
_KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff]")

# mteval-v13a's rules as sacrebleu applies them, but for its blanks around blanks, which change nothing.
_SYMBOL = re.compile(r"([{-~\[-`!-&(-+:-@/])")
_AFTER_NO_DIGIT = re.compile(r"([^0-9])([.,])")
_BEFORE_NO_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH = re.compile(r"([0-9])(-)")
_DIGIT = re.compile("[0-9]")
_WITHOUT_DIGITS = re.compile(r"[{-~\[-`!-&(-+:-@/.,]|[^\s{-~\[-`!-&(-+:-@/.,]+")
# What sacrebleu's tokenizer `zh` sets apart. It spells two ranges beyond the basic plane with four digits, so that they
# are others (2001-2a6d, 2f81-2fa1); equal numbers matter more than right ranges here.
_APART = (
    "\u2001-\u2a6d\u2e80-\u2eff\u2f00-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u33ff\u3400-\u4db5"
    "\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef"
)
_CHINESE_PARTS = re.compile(rf"[{_APART}]|[^{_APART}]+")

ROUGE_TOKENS = "nfkc:yes|case:no|punctuation:no|zh:characters|others:words|stemming:no"
"""What signatures say of `tokens`."""


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


def mteval_tokens(text: str) -> list[str]:
    """Tokens for BLEU of languages with spaces: sacrebleu's `13a`."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for name, sign in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")) if "&" in text else ():
        text = text.replace(name, sign)
    return _parted(f" {text} ")


def chinese_tokens(text: str) -> list[str]:
    """Tokens for BLEU of Chinese: sacrebleu's `zh`, each character and full-width sign one, the rest as `13a`."""
    return _parted(" ".join(_CHINESE_PARTS.findall(text.strip())))


def character_tokens(text: str) -> list[str]:
    """Every character but white space: sacrebleu's `char`."""
    return [character for character in text if not character.isspace()]


def bleu_tokenizer(reference: str) -> str:
    """The tokenizer for a reference and its answers: `char` where it has kana, `zh` where Chinese, else `13a`."""
    if reference.isascii() or not has_unspaced(reference):
        return "13a"
    return "char" if _KANA.search(reference) else "zh"


BLEU_TOKENIZERS = {"13a": mteval_tokens, "zh": chinese_tokens, "char": character_tokens}


def _parted(text: str) -> list[str]:
    if not _DIGIT.search(text):  # every sign is a token then: one pass in place of three
        return _WITHOUT_DIGITS.findall(text)
    text = _SYMBOL.sub(r" \1 ", text)
    if "." in text or "," in text:
        text = _BEFORE_NO_DIGIT.sub(r" \1 \2", _AFTER_NO_DIGIT.sub(r"\1 \2 ", text))
    return (_DASH.sub(r"\1 \2 ", text) if "-" in text else text).split()
