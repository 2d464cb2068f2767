"""One item, annotated by several people: the kinds of questions there are, and what the raters settle on.

Knows nothing of the tools' exports, of prompts and of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from tuneloop.core import jsonl
from tuneloop.core.conversation import JsonObject
from tuneloop.texts.words import count_words

Kind = Literal[
    "string", "choice", "choices", "path", "paths", "number", "text", "spans", "relations", "pair", "chat", "other"
]
"""What a question asks for. `string`: a label or a written text, which an export does not always say; `path`: a label
of levels, "a/b"; `choices` and `paths`: several at once, always a list; `pair`: which of two texts is better."""
Agree = Literal["majority", "unanimous", "newest", "first"]
SEVERAL: dict[Kind, Kind] = {"choice": "choices", "path": "paths"}
LABELS: tuple[Kind, ...] = (*SEVERAL, *SEVERAL.values())
SETS: tuple[Kind, ...] = ("choices", "paths", "spans", "relations")
"""Kinds whose values are lists without an order: raters vote on each element."""
EMPTY_SAYS_NONE: tuple[Kind, ...] = ("spans", "relations")
"""Kinds where an empty list is an answer (there is none); elsewhere it is a question left open."""
LONGEST_LABEL = 80  # characters; what is longer was written, not chosen
JUDGED_FROM = 10  # texts from which their repetition tells labels from writing
LABEL_WORDS = 4  # on average; many different labels are short, many different answers are not

_ANSWERS = (
    "response answer reply output completion target rewrite rewritten correction corrected edit edited revision "
    "revised improved better gold reference ideal fix translation summary 回答 答案 回复 回覆 输出 改写 重写 修改 修正 "
    "更正 纠正 润色 参考 译文 翻译 摘要"
).split()
_COMMENTS = (
    "comment note reason explanation feedback remark justification rationale 备注 備註 说明 說明 评论 評論 原因 理由 "
    "意见 意見 反馈 批注"
).split()
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Annotation:
    """One rater's values by question; a question left open is missing, never a class of its own.

    A cancelled annotation (the rater skipped the item) has no values. `rater` is "" where the export does not say.
    """

    rater: str
    values: Mapping[str, Any]
    ground_truth: bool = False
    cancelled: bool = False
    time: str | float | None = None
    seconds: float | None = None

    def to_json(self, item: str) -> JsonObject:
        """The shape of an entry of meta["annotations"]."""
        out: JsonObject = {"rater": self.rater, "item": item, "values": dict(self.values)}
        marks = {"ground_truth": self.ground_truth or None, "cancelled": self.cancelled or None}
        more = {**marks, "time": self.time, "seconds": self.seconds}
        return {**out, **{key: value for key, value in more.items() if value is not None}}


@dataclass
class Strings:
    """The strings that answer one question. Once it is clear that they were written, none is kept any more."""

    count: int = 0
    words: int = 0
    written: bool = False
    distinct: set[str] = field(default_factory=set[str])

    def add(self, text: str) -> None:
        if self.written or "\n" in text or len(text) > LONGEST_LABEL:
            self.written = True
            self.distinct.clear()
            return
        self.count += 1
        self.words += count_words(text)
        self.distinct.add(text)

    def kind(self, question: str) -> Kind:
        """Whether they were chosen or written, where the export does not say: by length, repetition and name."""
        if self.written:
            return "text"
        judged, distinct = self.count >= JUDGED_FROM, len(self.distinct)
        if judged and distinct <= self.count / 5:
            return "choice"
        if judged and distinct > self.count / 2 and self.words > LABEL_WORDS * self.count:
            return "text"
        return "text" if asks_for_an_answer(question) or asks_for_a_comment(question) else "choice"


@dataclass(frozen=True)
class Tie:
    """The raters do not settle on a value; `votes` are {"value", "raters"}."""

    votes: list[JsonObject]


def voters(annotations: Sequence[Annotation], agree: Agree, trusted: Sequence[str]) -> list[Annotation]:
    """The annotations that count: the ground truth where there is one, else those of trusted raters, else all.

    Of these, for newest and first, a single one as a whole; otherwise the newest of each rater.
    """
    given = [annotation for annotation in annotations if annotation.values]
    truth = [annotation for annotation in given if annotation.ground_truth]
    heard = truth or [annotation for annotation in given if annotation.rater in trusted] or given
    if not heard or agree == "first":
        return sorted(heard, key=_instant)[:1]
    if agree == "newest":
        return sorted(heard, key=_instant)[-1:]
    last: dict[object, Annotation] = {}
    for number, annotation in enumerate(sorted(heard, key=_instant)):
        # without names or times nobody can say what replaces what
        last[annotation.rater if annotation.rater and annotation.time else number] = annotation
    return list(last.values())


def settle(question: str, kind: Kind, heard: Sequence[Annotation], agree: Agree, answer: bool = False) -> Any:
    """The value that the raters settle on, a Tie, or None where nobody answered.

    The most votes win (unanimous: all of them). Of several labels and of spans, each is kept that more than half of
    the raters gave who answered. Numbers are averaged. For the `answer`, which has to be one that somebody gave,
    numbers are votes, and so is each of several texts that one rater wrote.
    """
    ballots = [(annotation.rater, annotation.values[question]) for annotation in heard if question in annotation.values]
    if kind == "text" and answer:
        several = [(rater, value if isinstance(value, list) else [value]) for rater, value in ballots]
        ballots = [(rater, text) for rater, texts in several for text in texts]
        if agree in ("first", "newest"):
            ballots = ballots[:1] if agree == "first" else ballots[-1:]
    if len(ballots) <= 1:
        return ballots[0][1] if ballots else None
    if kind == "number" and not answer and agree != "unanimous":
        return round(sum(value for _, value in ballots) / len(ballots), 4)
    if kind in SETS:
        return _by_element(ballots, agree)
    votes = _count(ballots)
    if len(votes) > 1 and (agree == "unanimous" or len(votes[0]["raters"]) == len(votes[1]["raters"])):
        return Tie(votes)
    return votes[0]["value"]


@lru_cache(maxsize=1024)
def asks_for_an_answer(question: str) -> bool:
    """Whether the name of a question says that its text is an answer: rewrite, correction, 改写 …"""
    return _has_word(question, _ANSWERS)


@lru_cache(maxsize=1024)
def asks_for_a_comment(question: str) -> bool:
    """Whether the name of a question says that its text is about the item, not an answer: comment, reason, 备注 …"""
    return _has_word(question, _COMMENTS)


def position(span: Mapping[str, Any]) -> list[list[int]]:
    """Sorts spans by place: characters, or node and character in HTML and dialogues ("/p[1]/text()[1]:8")."""
    return [[int(number) for number in re.findall(r"\d+", str(span.get(end)))] for end in ("start", "end")]


def _has_word(name: str, words: Iterable[str]) -> bool:
    spaced = _CAMEL.sub(" ", name).lower()
    return any(
        re.search(rf"(?<![a-z]){word}s?(?![a-z])", spaced) if word.isascii() else word in spaced for word in words
    )


def _instant(annotation: Annotation) -> float:
    """Seconds since 1970; 0 where the export has no time, so that the file's order decides."""
    if isinstance(annotation.time, str):
        try:
            moment = datetime.fromisoformat(annotation.time)
        except ValueError:
            return 0.0
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return annotation.time or 0.0


def _count(ballots: Iterable[tuple[str, Any]]) -> list[JsonObject]:
    """{"value", "raters"} of each distinct value, most votes first; texts count as equal without outer spaces."""
    votes: dict[bytes, JsonObject] = {}
    for rater, value in ballots:
        key = jsonl.dump(value.strip() if isinstance(value, str) else value)
        votes.setdefault(key, {"value": value, "raters": []})["raters"].append(rater)
    return sorted(votes.values(), key=lambda vote: -len(vote["raters"]))


def _by_element(ballots: Sequence[tuple[str, Any]], agree: Agree) -> Any:
    distinct = [(rater, {jsonl.dump(element): element for element in value}) for rater, value in ballots]
    votes = _count((rater, element) for rater, elements in distinct for element in elements.values())
    counts, all_ = [len(vote["raters"]) for vote in votes], len(ballots)
    undecided = any(count < all_ if agree == "unanimous" else 2 * count == all_ for count in counts)
    kept = [vote["value"] for vote, count in zip(votes, counts, strict=True) if 2 * count > all_]
    return Tie(votes) if undecided or (not kept and all(value for _, value in ballots)) else kept
