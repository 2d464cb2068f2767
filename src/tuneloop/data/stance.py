"""What an answer commits itself to, so that answers to one question can be held against each other.

Two free-form answers that merely differ do not contradict one another. They do where both commit themselves to a value
of the same kind: a label, a concluded number, yes or no, a short answer as in classification; or where they say the
same but for a number or a negation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from tuneloop.core import digest
from tuneloop.core.conversation import Example
from tuneloop.guard import screen
from tuneloop.texts.words import count_words, normalise, spoken

SHORT_WORDS = 4
"""An answer of so many words at most (Chinese characters count as words) is taken for a choice, not for prose."""

# Texts are normalised first: full-width digits, commas and colons have become ASCII, letters small. The patterns begin
# with few characters each, which the engine looks for many times faster than for alternatives.
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_CUES = ("####", "boxed{", "answer", "答案", "结果", "結果", "等于", "等於")
_CONCLUSION = re.compile(
    r"(?:####|boxed\{|(?<![a-z])answer(?: is|:| =)|(?:答案|结果|結果|等于|等於)(?:是|为|為|:|=)?)"
    rf"[^\w\s-]{{0,3}} ?(-?)[^\w\s-]{{0,2}}({_NUMBER.pattern})"
)
_YES = "yes|yeah|yep|true|correct|right|positive|是的?|对的?|對的?|正确|正確|可以|能|会|會|有|没错|沒錯|正面|积极|積極"
_NO = (
    "no|nope|false|incorrect|wrong|negative|不是的?|不对|不對|不|否|错误?|錯誤?|不可以|不能|不会|不會|"
    "没有|沒有|负面|負面|消极|消極"
)
_OPENING = re.compile(rf"\W*(?:(?P<yes>{_YES})|(?P<no>{_NO})) ?(?:[.,!;:。、)*\"'”’」]|$)")
_NEGATION = re.compile(
    r"[n不没沒无無否未非](?:(?<=n)(?:['’]t|(?:(?<![a-z]n)|(?<=cann))(?:ot|ever|o)(?![a-z]) ?)|(?<=[不没沒无無否])"
    r"|(?<=未)(?![来來])|(?<=非)(?!常))"
)
_OF_NUMBERS_AND_NEGATIONS = "0123456789,.notever'’ 不没沒无無否未非有".encode()
_EDGES = " .,!?;:。、…\"'“”‘’「」()[]【】`*_"


class Stance(NamedTuple):
    """The values that an answer commits itself to, as 64-bit hashes; 0 where it does not."""

    label: int
    """`meta.label`."""
    number: int
    """The concluded number: after "####", "answer is", "答案是", "\\boxed{", or the only one of a short answer."""
    polarity: int
    """Yes or no at the opening."""
    answer: int
    """A short answer or a tool call as a whole; its number or polarity where it has one, so that wording is free."""
    wording: int
    """A longer answer without its numbers and negations."""
    numbers: int
    """The numbers in a longer answer, in their order."""
    negations: int
    """Their count in a longer answer, plus 1."""


KINDS = ("label", "number", "polarity", "answer")
"""The fields in which two answers contradict one another when both have a value and the values differ."""


def stance(example: Example, short_words: int = SHORT_WORDS, worded: bool = True, cued: bool | None = None) -> Stance:
    """The stance of the example's last supervised message. `worded`: with the last three fields, which of a long answer
    take most of the time; else they are 0. `cued`: what `are_cued` says of its content, where that is known."""
    answer, label = example.answer, example.meta.get("label")
    labelled = 0 if label in (None, "") else hash_of(normalise(str(label)))
    if answer.tool_calls:
        calls = [[call.name, digest.of_value(call.arguments)] for call in answer.tool_calls]
        return Stance(labelled, 0, 0, hash_of(repr(calls)), 0, 0, 0)
    text = normalise(answer.content)
    opening = _OPENING.match(text)
    polarity = 0 if opening is None else 1 if opening["yes"] else 2
    cued = any(map(text.__contains__, _CUES)) if cued is None else cued
    concluded = _CONCLUSION.findall(text) if cued else []
    number = hash_of(concluded[-1][0] + _plain(concluded[-1][1])) if concluded else 0
    if not _is_short(text, short_words):
        if not worded:
            return Stance(labelled, number, polarity, 0, 0, 0, 0)
        found = _NUMBER.findall(text)
        numbers = " ".join(map(_plain, found))
        bare, negations = _NEGATION.subn("", _NUMBER.sub("0", text) if found else text)
        bare = bare.replace("有", "")  # 没有 denies 有 and the bare verb alike
        return Stance(labelled, number, polarity, 0, hash_of(bare), hash_of(numbers), negations + 1)
    numbers = _NUMBER.findall(text)
    if not number and len(numbers) == 1:
        sign = "-" if re.search(rf"(?<![\w)])-\W?{re.escape(numbers[0])}", text) else ""
        number = hash_of(sign + _plain(numbers[0]))
    core = text.strip(_EDGES)
    return Stance(labelled, number, polarity, number or polarity or (hash_of(core) if core else 0), 0, 0, 0)


def core(example: Example) -> bytes:
    """The answer without any byte that a number or a negation may have: differs only where `Stance.wording` does."""
    return normalise(example.answer.content).encode("utf-8", "surrogatepass").translate(None, _OF_NUMBERS_AND_NEGATIONS)


def marks(texts: Sequence[str]) -> list[int]:
    """A number of each normalised answer: where two differ, so do the `core`s, whatever they are."""
    import numpy as np

    data = np.frombuffer("\n".join([*texts, ""]).encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))  # normalised texts have none
    weights = np.random.default_rng(0).integers(1, 2**32, 256, np.uint32)
    weights[np.frombuffer(_OF_NUMBERS_AND_NEGATIONS, np.uint8)] = 0
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    return np.add.reduceat(np.take(weights, data), starts, dtype=np.uint32).tolist()


def are_cued(texts: Sequence[str]) -> list[bool]:
    """Which normalised answers have a word that stands before a conclusion."""
    return screen.matching(texts, "|".join(map(re.escape, _CUES))).tolist()


def are_short(examples: Sequence[Example]) -> list[bool]:
    """Whether the last supervised message of each is a choice (a few words, or a tool call) rather than prose."""
    from tuneloop.data.characters import count_words as count_all

    answers = [example.answer for example in examples]
    out = [bool(one.tool_calls) for one in answers]
    rows = [row for row, one in enumerate(answers) if len(one.content) <= 40 * SHORT_WORDS]
    for row, words in zip(rows, count_all([answers[row].content for row in rows]).tolist(), strict=True):
        out[row] |= words <= SHORT_WORDS
    return out


def _is_short(text: str, short_words: int) -> bool:
    return len(text) <= 40 * short_words and count_words(text) <= short_words


def question_key(example: Example) -> int:
    """Equal for examples whose prompts have the same numbers, negations, system messages and tools.

    Near-same prompts that differ in one of these ask something else: 12 + 30 and 12 + 31, true and not true.
    """
    text = normalise(question(example))
    numbers = [_plain(number) for number in _NUMBER.findall(text)]
    system = [normalise(message.content) for message in example.messages if message.role == "system"]
    tools = [digest.of_value(tool) for tool in example.tools]
    return hash_of(repr((numbers, len(_NEGATION.findall(text)), system, tools)))


def asked(example: Example) -> list[str]:
    """What the prompt's messages say, without the system's; all messages of a document that has no prompt."""
    turns = example.prompt or example.messages
    return [spoken(turn) for turn in turns if turn.role != "system"]


def question(example: Example) -> str:
    """What is asked, as one text."""
    return "\n".join(asked(example))


def dispute(one: Stance, other: Stance, same_question: bool = True) -> str | None:
    """In what two answers contradict one another: a kind, or None. Numbers and negations within prose count only where
    the question is the same (`question_key`)."""
    for kind in KINDS:
        first, second = getattr(one, kind), getattr(other, kind)
        if first and second and first != second:
            return kind
    if same_question and one.wording and one.wording == other.wording:
        return "number" if one.numbers != other.numbers else "polarity" if one.negations != other.negations else None
    return None


def said(example: Example, limit: int = 80) -> str:
    """A row's label and the beginning of its answer, for people."""
    label = example.meta.get("label")
    text = " ".join(spoken(example.answer).split())
    text = text if len(text) <= limit else f"{text[:limit]}…"
    return text if label in (None, "") else f"[{label}] {text}"


def hash_of(text: str) -> int:
    """64 bits, never 0."""
    value = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(value, "little") or 1


def _plain(number: str) -> str:
    """1,000.0 and 1000 are the same number; 1,2 is none, and stays as it is."""
    if "," in number:
        if not _THOUSANDS.fullmatch(number):
            return number.rstrip(",")
        number = number.replace(",", "")
    return f"{Decimal(number).normalize():f}" if "." in number else number.lstrip("0") or "0"
