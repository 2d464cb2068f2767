"""Formats of annotation tools: an annotated item, whatever tool it is from, becomes a prompt, an answer and meta.

What raters see is the `data` of an item, what they say are answers to its questions. A leaf reads one tool's records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

from tuneloop.core.conversation import JsonObject, Message
from tuneloop.data.annotations import (
    LABELS,
    Agree,
    Annotation,
    Kind,
    Tie,
    asks_for_a_comment,
    asks_for_an_answer,
    position,
    settle,
    voters,
)
from tuneloop.data.asked import Asked, ask, find_responses
from tuneloop.data.formats import Format, Parts, RowError
from tuneloop.data.items import Item, kinds_of
from tuneloop.data.turns import dump_text, read_tools, read_turns, reject_media, rest, text_of


class Source(NamedTuple):
    """Where an answer may stand: a question (several of them make one JSON object), a field of the data, or the
    assistant turn that ends the data's conversation."""

    where: Literal["question", "field", "turn"]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The supervised end of the conversation, and what it was made of (which then is no meta)."""

    messages: tuple[Message, ...]
    questions: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    label: str | None = None
    notes: tuple[str, ...] = ()
    rejected: tuple[Message, ...] = ()


class AnnotationFormat(Format, ABC):
    """The part of an annotation tool's format that is the same for all tools."""

    shown: ClassVar[Sequence[str]] = ()
    """The field that raters see, where the tool has only one; beside it there is metadata at most."""

    prompt: str | list[str] = ""
    """The field that is asked, or several, joined by line breaks. Automatic: the one with a usual name (prompt,
    question, instruction + input …, else text, document …) or the only text; a conversation is read turn by turn."""
    response: str | list[str] = ""
    """The question (control) or field that holds the answer; of several, the first that a row has. Automatic, the first
    there is of: a written answer or rewrite (no comment), a field with a usual name, a chat, the better text of a pair,
    spans, a single choice or taxonomy, several choices, a number."""
    label: str = ""
    """The question or field that becomes meta.label. Automatic: the taxonomy, else the only single choice."""
    instruction: str = ""
    """Text put before the prompt, on a line of its own."""
    agree: Agree = "majority"
    """How several raters settle: most votes (numbers: the mean), unanimous, or the newest or first annotation as a
    whole. A tie about the answer drops the row and shows the votes; ground truth goes before all votes."""
    trusted: tuple[str | int, ...] = ()
    """Raters whose annotations count alone where there are any, as an adjudicator's do."""
    unannotated: Literal["drop", "keep"] = "drop"
    """Items that nobody annotated, or that were skipped: drop them, or keep them with the response in their data."""

    _kinds: dict[str, Kind] | None = None

    @abstractmethod
    def item(self, record: JsonObject) -> Item:
        """What a (joined) record holds. Raises RowError."""

    def informed(self, rows: Iterable[JsonObject]) -> Self:
        """What the questions ask for: a row alone cannot tell whether a short text was chosen or written, nor which
        questions others answered."""
        knowing = self.model_copy()
        knowing._kinds = kinds_of(self._items(rows))
        return knowing

    def parse(self, record: JsonObject) -> Parts:
        if self._kinds is None:  # a record by itself
            (record,) = self.join([record])
            item = self.item(record)
            item = item.of_kinds(kinds_of([item]))
        else:
            item = self.item(record).of_kinds(self._kinds)
        reject_media(item.data)
        heard = voters(item.annotations, self.agree, [str(rater) for rater in self.trusted])
        if not heard and self.unannotated == "drop":
            raise RowError(item.unheard, item=item.id)
        asked = ask(
            item.data, _names(self.prompt) or self.shown, self.instruction, lambda name: self._value(item, heard, name),
            needed="chat" not in item.kinds.values(),
        )  # fmt: skip
        answer = self._answer(item, heard, asked)
        meta, notes = self._meta(item, heard, {*asked.fields, *answer.fields}, answer)
        messages = (*asked.messages, *answer.messages)
        tools = read_tools(item.data.get("tools"))
        notes = (*item.notes, *asked.notes, *answer.notes, *notes)
        return Parts(messages, tools, meta, notes, answer.rejected)

    def _items(self, records: Iterable[JsonObject]) -> Iterator[Item]:
        for record in records:
            with suppress(RowError):  # a row that cannot be read is dropped when its turn comes
                yield self.item(record)

    def _value(self, item: Item, heard: Sequence[Annotation], question: str) -> Any:
        """What the raters say, None where nobody does. Raises RowError for a tie."""
        if question not in item.kinds:
            return None
        value = settle(question, item.kinds[question], heard, self.agree, answer=True)
        if isinstance(value, Tie):
            reason = f"the annotators do not agree on '{question}'; `trusted:` or another `agree:` can settle it"
            raise RowError(reason, question=question, agree=self.agree, votes=value.votes)
        return value

    # -- the answer ----------------------------------------------------------------------------------------------------
    def _answer(self, item: Item, heard: Sequence[Annotation], asked: Asked) -> Answer:
        named = [Source(where, (name,)) for name in _names(self.response) for where in ("question", "field")]
        sources = named or self.sources(item, asked)
        for source in sources:
            found = self._from(item, heard, asked, source)
            if found is not None:
                return found
        wanted = " or ".join(dict.fromkeys(f"'{name}'" for source in sources for name in source.names))
        raise RowError(f"no answer: the row has no {wanted}", fields=list(item.data), questions=list(item.kinds))

    def sources(self, item: Item, asked: Asked) -> list[Source]:
        """Where the automatic choice looks for the answer, in this order. Raises RowError where it is not clear."""
        of_kind: dict[Kind, list[str]] = {}
        for question, kind in item.kinds.items():
            of_kind.setdefault(kind, []).append(question)
        written = [question for question in of_kind.get("text", []) if not asks_for_a_comment(question)]
        answers = [question for question in written if asks_for_an_answer(question)]
        texts = [Source("question", (name,)) for name in (answers if len(answers) == 1 else written)]
        given = [Source("turn")] if asked.answer else [Source("field", (name,)) for name in find_responses(item.data)]
        pairs = [question for question in of_kind.get("pair", []) if question in item.pairs]
        one = of_kind.get("choice", []) + of_kind.get("path", [])
        several = of_kind.get("choices", []) + of_kind.get("paths", [])
        questions = (of_kind.get("chat", []), pairs, of_kind.get("spans", []), one, several, of_kind.get("number", []))
        for found in (texts, given, *([Source("question", (name,)) for name in names] for names in questions)):
            if len(found) > 1:
                names = " and ".join(f"'{source.names[0]}'" for source in found)
                raise RowError(
                    f"{names} could each be the answer: name one with the format's option `response`",
                    questions=dict(item.kinds), fields=list(item.data),
                )  # fmt: skip
            if found:
                return [*found, *(given if found is texts else [])]
        raise RowError(
            "no answer: neither a question nor a field looks like one; name it with the format's option `response`",
            questions=dict(item.kinds), fields=list(item.data),
        )  # fmt: skip

    def _from(self, item: Item, heard: Sequence[Annotation], asked: Asked, source: Source) -> Answer | None:
        """The answer from one source, None where this row has none there."""
        if source.where == "turn":
            return Answer((asked.answer,)) if asked.answer is not None else None
        name = source.names[0]
        if source.where == "field":
            if item.data.get(name) in (None, ""):
                return None
            notes: list[str] = []
            text = text_of(item.data[name], name, notes)
            return Answer((Message("assistant", text),), fields=(name,), notes=tuple(notes))
        values = {name: self._value(item, heard, name) for name in source.names}
        if None in values.values():
            return None
        kinds = [item.kinds[name] for name in source.names]
        if kinds[0] == "chat":
            turns = read_turns(values[name], "role", "content")
            before = () if asked.answer is None else (asked.answer,)
            return Answer((*before, *turns.messages), source.names, notes=tuple(turns.notes))
        if kinds[0] == "pair":
            return _better(item, name, values[name])
        labels = [_text(values[name]) for name, kind in zip(source.names, kinds, strict=True) if kind in LABELS]
        plain = {name: _plain(values[name], item.kinds[name], asked) for name in source.names}
        text = dump_text(plain) if len(plain) > 1 else _text(plain[name])
        return Answer((Message("assistant", text),), source.names, label=labels[0] if labels else None)

    # -- the meta ------------------------------------------------------------------------------------------------------
    def _meta(
        self, item: Item, heard: Sequence[Annotation], used: set[str], answer: Answer
    ) -> tuple[JsonObject, list[str]]:
        notes: list[str] = []
        said: JsonObject = {}
        for question, kind in item.kinds.items():
            if kind in (*LABELS, "number", "text", "pair") and question not in answer.questions:
                value = settle(question, kind, heard, self.agree)
                if isinstance(value, Tie):
                    notes.append(f"annotators do not agree on '{question}': it stands in meta.annotations only")
                elif value is not None:
                    said[question] = value
        label = self._label(item, heard, said, answer)
        if label is not None:
            said["label"] = label
        said["annotations"] = [annotation.to_json(item.id) for annotation in item.annotations]
        data = rest(item.data, *used, "tools")
        # as Label Studio's own CSV names a field whose name is also a question's
        data = {f"_data_{key}" if key in said else key: value for key, value in data.items()}
        more = {key: value for key, value in item.meta.items() if value is not None}
        return {**more, **data, **said}, notes

    def _label(self, item: Item, heard: Sequence[Annotation], said: JsonObject, answer: Answer) -> str | None:
        if self.label and self.label not in answer.questions:
            found = self._value(item, heard, self.label) if self.label in item.kinds else item.data.get(self.label)
            return None if found is None else _text(found)
        for kind in () if self.label else ("path", "choice"):
            questions = [question for question in item.kinds if item.kinds[question] == kind]
            if len(questions) == 1 and questions[0] not in answer.questions:
                return said.get(questions[0])
        return answer.label


def _names(option: str | list[str]) -> list[str]:
    return ([option] if option else []) if isinstance(option, str) else option


def _better(item: Item, question: str, value: Any) -> Answer:
    if question not in item.pairs or value not in ("left", "right"):
        reason = f"'{question}' does not say which field of the data is the better one; name the answer with `response`"
        raise RowError(reason, value=value, fields=list(item.data))
    worse, name = item.pairs[question][:: 1 if value == "right" else -1]
    lost = item.data.get(worse)
    rejected = (Message("assistant", text_of(lost, worse)),) if lost not in (None, "") else ()
    return Answer((Message("assistant", text_of(item.data.get(name), name)),), (), (name,), rejected=rejected)


def _plain(value: Any, kind: Kind, asked: Asked) -> Any:
    """A value as the answer shows it: of spans and relations their texts, without places."""
    if kind == "spans":
        return [{"text": asked.cut(span), "label": span["label"]} for span in sorted(value, key=position)]
    if kind == "relations":
        return [{"head": asked.cut(one["head"]), "type": one["type"], "tail": asked.cut(one["tail"])} for one in value]
    return value


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else dump_text(value)
