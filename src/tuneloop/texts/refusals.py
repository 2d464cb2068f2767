"""Answers that decline, in English and Chinese: what cleaning drops and evaluation counts."""

from __future__ import annotations

import re

from tuneloop.texts.words import count_words

RULES = "1"
"""Changes with every change to what is found, so that shares by other rules do not compare."""
SHORT = 80  # words (Chinese characters) up to which an answer that begins with a refusal is one and no more
BEGINNING = 80  # characters in which an answer must begin to decline
_REASON = 160  # characters in which it must say that something cannot be done

_SIGNS = (
    "orry", "pologi", "nfortun", "I can't", "I can’t", "I cannot", "I can not", "unable", "not able", "I don't",
    "I don’t", "I do not", "AI", "rtificial", "anguage model", "抱歉", "对不起", "遗憾", "不好意思", "无法", "不能",
    "没有", "人工智能", "语言模型",
)  # fmt: skip
"""One of these is in every beginning that declines; looking for them is ten times as fast as a regular expression."""
_REFUSAL = re.compile(
    r"(?i)(?:^|[.!。！，,] ?)(?:i(?:['’]m| am) (?:very |really |so )?sorry|sorry|i apologi[sz]e|unfortunately"
    r"|as an? (?:ai|artificial)\b|i (?:can(?:['’]|no)t|can not|am (?:not able|unable)|do(?: not|n['’]t) have)"
    r"|i['’]m unable|(?:很|非常)?(?:抱歉|对不起|遗憾|不好意思)|我(?:无法|不能|没有办法)"
    r"|作为(?:一[个名款])?(?:人工智能|ai|(?:大型?)?语言模型))"
)
_UNABLE = re.compile(
    r"(?i)can(?:['’]|no)t|can not|unable|not (?:able|capable|have|provide)|do(?: not|n['’]t) (?:have|possess)"
    r"|(?:have|did)(?: not|n['’]t) (?:provide|give|specif)|无法|不能|没有|不具备|不支持|未提供|沒有|無法"
)
_SPEECH = re.compile('[“"「『:：]')
_DISCLAIMER = re.compile(
    r"(?i)\bas an? (?:ai\b|artificial intelligence|(?:large )?language model)"
    r"|\bi(?:['’]m| am) (?:just |only )?an? (?:ai\b|(?:large )?language model)"
    r"|(?<![你您])作为(?:一[个名款位])?\w{0,4}?(?:ai|人工智能|语言模型)"
    r"|我(?:只)?是(?:一[个名款])?(?:ai|人工智能|(?:大型?)?语言模型)"
)


def may_decline(text: str) -> bool:
    """A quick look that nothing of what follows gets past."""
    return any(map(text[:BEGINNING].__contains__, _SIGNS))


def refuses(text: str) -> bool:
    """Whether a short answer only says that it cannot, or that the input is missing; quoted speech does not."""
    start = text[:BEGINNING]
    refusal = _REFUSAL.search(start)
    if refusal is None or _SPEECH.search(start, 0, refusal.start() + 1) is not None:
        return False
    return _UNABLE.search(text[:_REASON]) is not None and count_words(text) <= SHORT


def disclaims(text: str) -> bool:
    """Whether an answer begins with what an AI is not: "As an AI language model, I cannot …"."""
    return _DISCLAIMER.search(text[:BEGINNING]) is not None and _UNABLE.search(text[:_REASON]) is not None
