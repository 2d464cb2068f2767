"""What counts as a word, as the same text and as which writing, in Chinese and English alike.

Whitespace words, `\\b` and `[a-z]+` do not work for Chinese: a character is a word there. Every row passes through here
several times, so texts of common characters are counted on their UTF-8 bytes, at a few nanoseconds a character.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3041-\u3096\u30a1-\u30fa"
CJK = HAN + KANA
JOINERS = r"'’.,\-"
"""Between two letters or digits they part no words."""
_CJK = re.compile(f"[{CJK}]")
_WORD = re.compile(rf"[^\W{CJK}]+(?:[{JOINERS}][^\W{CJK}]+)*")
_LATIN_RUN = re.compile("[A-Za-z\u00c0-\u024f]+")
SCRIPTS = {
    "ja": re.compile(f"[{KANA}]"),
    "zh": re.compile(f"[{HAN}]"),
    "ko": re.compile("[\uac00-\ud7a3]"),
    "latin": _LATIN_RUN,
}
"""What is counted of each writing."""
_UNCOMMON = re.compile(
    "[^\x00-\x7f\u00a0-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf-\u00d6\u00d8-\u00f6\u00f8-\u024f"
    "\u0400-\u0481\u048a-\u04ff\u2010-\u205e\u3000-\u3004\u3008-\u3020\u4e00-\u9fff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)
"""What the count on bytes would get wrong: kana, full-width letters, digits in circles, combining marks and others."""

_CONTINUATION = bytes(range(0x80, 0xC0))
_ASCII_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LATIN = _ASCII_LETTERS + bytes(range(0xC3, 0xCA))
_CYRILLIC = bytes(range(0xD0, 0xD4))
_HAN = bytes(range(0xE4, 0xEA))


def _table(classes: Mapping[str, bytes]) -> bytes:
    """A translation of lead bytes to the letters of their classes, of all others to spaces."""
    table = bytearray(b" " * 256)
    for name, members in classes.items():
        for member in members:
            table[member] = ord(name)
    return bytes(table)


_WORD_TABLE = _table({"w": _LATIN + _CYRILLIC + b"0123456789_", "'": b"'.,-", "#": _HAN})
_GLUED = re.compile(rb"'(?<=[wW]')(?=W)")
_LETTER_CLASSES = {
    "han": _HAN,
    "kana": b"\xe3",
    "hangul": bytes(range(0xEA, 0xEE)),
    "latin": _LATIN,
    "cyrillic": _CYRILLIC,
    "greek": b"\xce\xcf",
    "hebrew": b"\xd6\xd7",
    "arabic": bytes(range(0xD8, 0xDC)),
    "southern": b"\xe0\xe1",
}
_CODES = {name: bytes([ord("a") + number]) for number, name in enumerate(_LETTER_CLASSES)}
_LETTER_TABLE = _table({_CODES[name].decode(): leads for name, leads in _LETTER_CLASSES.items()})


class Letters(NamedTuple):
    """How many letters of each writing a text has. Right to within the odd sign that shares a block with letters."""

    han: int = 0
    kana: int = 0
    hangul: int = 0
    latin: int = 0
    cyrillic: int = 0
    greek: int = 0
    hebrew: int = 0
    arabic: int = 0
    southern: int = 0
    """Scripts of South and South-East Asia, Georgian, Ethiopic."""


def letters(text: str) -> Letters:
    """The letters of a text by writing, in one pass over its bytes."""
    if text.isascii():
        return Letters(latin=_count(text.encode(), _ASCII_LETTERS))
    data = text.encode("utf-8", "surrogatepass")
    classes = data.translate(_LETTER_TABLE, _CONTINUATION)
    found = {name: _count(classes, code) for name, code in _CODES.items() if code in classes}
    if "kana" in found:
        found["kana"] -= data.count(b"\xe3\x80")  # Chinese and Japanese punctuation has the same lead byte
    return Letters(**found)


def _count(data: bytes, members: bytes) -> int:
    return len(data) - len(data.translate(None, members))  # several times as fast as bytes.count where there are many


@lru_cache(maxsize=8_192)  # several steps in a row ask for the same texts
def count_words(text: str) -> int:
    """Words of a text: a Chinese or kana character is one, elsewhere a run of letters or digits is."""
    if not text.isascii() and _UNCOMMON.search(text):
        return len(_CJK.findall(text)) + len(_WORD.findall(text))
    data = text.encode()
    if b"\xe2\x80\x99" in data:
        data = data.replace(b"\xe2\x80\x99", b"'")
    runs = data.translate(_WORD_TABLE, _CONTINUATION).title()  # title: a capital where a run of letters begins
    words = _count(runs, b"W#")
    return words - len(_GLUED.findall(runs)) if b"'W" in runs else words


def script_of(text: str) -> str:
    """The writing that carries most of a text: zh, ja, ko, latin or other. A Latin run of letters counts as one."""
    if text.isascii():
        return "latin" if _LATIN_RUN.search(text) else "other"
    if _UNCOMMON.search(text):
        counts = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    else:
        counts = {"ja": 0, "zh": _count(text.encode(), _HAN), "latin": len(_LATIN_RUN.findall(text))}
    return leading_script(counts)


def leading_script(counts: dict[str, int]) -> str:
    """The writing of a text in which those of SCRIPTS were found so often."""
    if counts["ja"] * 5 > counts["zh"]:  # Japanese mixes kana into Han; Chinese quotes a little kana at most
        counts = {**counts, "ja": counts["ja"] + counts["zh"], "zh": 0}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else "other"


_SPACES = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f"
_SMALL = bytes.maketrans(_SPACES + _ASCII_LETTERS[26:], b" " * len(_SPACES) + _ASCII_LETTERS[:26])
_FULL_WIDTH = tuple(zip("，：（）！？；～　…", [*",:()!?;~ ", "..."], strict=True))


REMEMBERED = 16_384
"""Normalised texts that are kept in mind: several steps in a row ask for the same ones."""
_forms: dict[str, str] = {}


def normalise(text: str) -> str:
    """The form in which texts are compared: NFKC, case folded, whitespace collapsed."""
    form = _forms.get(text)
    if form is None:
        form = _form(text)
        remember((text,), (form,))
    return form


def remember(texts: Sequence[str], forms: Sequence[str]) -> None:
    """Keeps normalised forms for those who ask next."""
    if len(_forms) + len(texts) > REMEMBERED:
        _forms.clear()
    _forms.update(zip(texts, forms, strict=True))


def _form(text: str) -> str:
    if text.isascii():  # at half the price of the same on characters
        data = text.encode().translate(_SMALL)
        return (b" ".join(data.split()) if b"  " in data else data.strip()).decode()
    for wide, narrow in _FULL_WIDTH:  # all that NFKC changes in most Chinese texts, at a tenth of its price
        text = text.replace(wide, narrow)
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def spoken(message: Message) -> str:
    """What a message says: its content and its tool calls, which may be all that an answer has."""
    if not message.tool_calls:
        return message.content
    calls = [f"{call.name} {jsonl.dump(call.arguments).decode()}" for call in message.tool_calls]
    return "\n".join([message.content, *calls])


def content_key(example: Example) -> bytes:
    """Equal for Examples that say the same: messages, what is supervised, tools, rejected; neither meta nor origin."""
    rejected = [[_comparable(message) for message in example.rejected]] if example.rejected else []
    return _digest([[_comparable(message) for message in example.messages], list(example.tools), *rejected])


def prompt_key(example: Example) -> bytes:
    """Equal for Examples that ask the same; for documents without a prompt, equal when the documents are."""
    return key_of_turns(example.prompt or example.messages)


def key_of_turns(messages: Sequence[Message]) -> bytes:
    """Equal for turns that say the same, whatever is called, thought or supervised in them."""
    return _digest([[message.role, normalise(message.content)] for message in messages])


def _comparable(message: Message) -> Sequence[object]:
    if not message.tool_calls and message.reasoning is None and message.train is None:
        return message.role, normalise(message.content)
    calls = [[call.name, call.arguments] for call in message.tool_calls]
    return [message.role, normalise(message.content), normalise(message.reasoning or ""), calls, message.weight]


def _digest(value: object) -> bytes:
    return hashlib.blake2b(jsonl.dump(value), digest_size=16).digest()
