"""What counts as a word, as the same text and as which writing, in Chinese and English alike.

Whitespace words, `\\b` and `[a-z]+` do not work for Chinese: a character is a word there.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3041-\u3096\u30a1-\u30fa"
_CJK = re.compile(f"[{HAN}{KANA}]")
_WORD = re.compile(rf"[^\W{HAN}{KANA}]+(?:['’.,\-][^\W{HAN}{KANA}]+)*")
_SCRIPTS = {
    "ja": re.compile(f"[{KANA}]"),
    "zh": re.compile(f"[{HAN}]"),
    "ko": re.compile("[\uac00-\ud7a3]"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f]+"),
}


def count_words(text: str) -> int:
    """Words of a text: a Chinese or kana character is one, elsewhere a run of letters or digits is."""
    if text.isascii():
        return len(_WORD.findall(text))
    return len(_CJK.findall(text)) + len(_WORD.findall(text))


def script_of(text: str) -> str:
    """The writing that carries most of a text: zh, ja, ko, latin or other. A Latin run of letters counts as one."""
    if text.isascii():
        return "latin" if _SCRIPTS["latin"].search(text) else "other"
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    if counts["ja"] * 5 > counts["zh"]:  # Japanese mixes kana into Han characters; Chinese quotes a little kana at most
        counts["ja"] += counts.pop("zh")
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else "other"


def normalise(text: str) -> str:
    """The form in which texts are compared: NFKC, case folded, whitespace collapsed."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def spoken(message: Message) -> str:
    """What a message says: its content and its tool calls, which may be all that an answer has."""
    calls = [f"{call.name} {jsonl.dump(call.arguments).decode()}" for call in message.tool_calls]
    return "\n".join([message.content, *calls]) if calls else message.content


def content_key(example: Example) -> bytes:
    """Equal for Examples that say the same: messages, what is supervised, and tools; neither meta nor origin."""
    return _digest([[_comparable(message) for message in example.messages], list(example.tools)])


def prompt_key(example: Example) -> bytes:
    """Equal for Examples that ask the same; for documents without a prompt, equal when the documents are."""
    asked = example.prompt or example.messages
    return _digest([[message.role, normalise(message.content)] for message in asked])


def _comparable(message: Message) -> Sequence[object]:
    calls = [[call.name, call.arguments] for call in message.tool_calls]
    return [message.role, normalise(message.content), normalise(message.reasoning or ""), calls, message.weight]


def _digest(value: object) -> bytes:
    return hashlib.blake2b(jsonl.dump(value), digest_size=16).digest()
