"""Parts of the examples by which every number is also given: columns, what every example shows, expressions.

Knows nothing of scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Annotated, cast

from pydantic import AfterValidator, Field

from tuneloop.core.conversation import Example
from tuneloop.core.plugins import Branch
from tuneloop.texts.expressions import ExpressionError, checked, compile_expression
from tuneloop.texts.words import count_words, letters

MOST = 40  # values of one key; the rest are put together: a column of free text is no slice
LONGEST_NAME = 60
MOST_LABELS = 20  # more distinct references than this are no set of classes


class Where(Branch):
    """Examples for which an expression is true, against the others."""

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    """What the slice is called."""
    where: Annotated[str, AfterValidator(checked)]
    """An expression as in the data step `filter`, e.g. words(prompt) > 50."""


Slice = Annotated[str, Field(min_length=1)] | Where
Values = list[tuple[str, ...]]
"""Of each example the values that it has: none, one, or two where the value has two levels."""


@dataclass(frozen=True)
class Slices:
    """Who is in which slice."""

    keys: dict[str, dict[str, list[int]]] = field(default_factory=dict[str, "dict[str, list[int]]"])
    """Key → value → numbers of examples."""
    notes: list[str] = field(default_factory=list[str])
    """Examples that are in none, and why."""

    def by_example(self, count: int) -> list[dict[str, list[str]]]:
        """Of each of `count` examples the slices that it is in, for samples.jsonl."""
        found: list[dict[str, list[str]]] = [{} for _ in range(count)]
        for key, parts in self.keys.items():
            for value, rows in parts.items():
                for place in rows:
                    found[place].setdefault(key, []).append(value)
        return found


def labels_of(references: Sequence[str | None]) -> tuple[str, ...]:
    """The distinct references where they are few enough to be the classes of a classification."""
    distinct = sorted({text for text in references if text is not None})
    return tuple(distinct) if len(distinct) <= min(MOST_LABELS, max(2, len(references) // 4)) else ()


def cut(slices: Sequence[Slice], examples: Sequence[Example]) -> Slices:
    """The examples by all slices; a slice that no example is in is left out with a note."""
    found = Slices()
    for one in slices:
        name = one.name if isinstance(one, Where) else one
        values, order = _values(one, examples, found.notes)
        parts = _parts(values, order)
        if not parts:
            columns = sorted({key for example in examples for key in example.meta})
            known = f"columns: {', '.join(columns)}" if columns else "they have no columns"
            found.notes.append(f"slice {name}: no example has it ({known}; built in: {', '.join(BUILT_IN)})")
            continue
        found.keys[name] = parts
    return found


def _values(one: Slice, examples: Sequence[Example], notes: list[str]) -> tuple[Values, Sequence[str] | None]:
    """Of each example its values, and their order where it is not the alphabet's."""
    if isinstance(one, Where):
        return _true(one, examples, notes), ("yes", "no")
    parts = [_column(name, examples) for name in one.split("+")]
    if len(parts) == 1:
        return parts[0]
    combined = [
        tuple(" · ".join(chosen) for chosen in product(*row))
        for row in zip(*(values for values, _ in parts), strict=True)
    ]
    return combined, None


def _true(one: Where, examples: Sequence[Example], notes: list[str]) -> Values:
    expression = compile_expression(one.where)
    values: Values = []
    failed: Counter[str] = Counter()
    for example in examples:
        try:
            values.append(("yes" if expression.value(example) else "no",))
        except ExpressionError as error:
            failed[str(error)] += 1
            values.append(())
    notes += [f"slice {one.name}: {count} examples are in neither part ({why})" for why, count in failed.items()]
    return values


def _column(name: str, examples: Sequence[Example]) -> tuple[Values, Sequence[str] | None]:
    """A column by its name; one of the built-in slices where no example has such a column."""
    given = [example.meta.get(name) for example in examples]
    if any(value is not None for value in given):
        if name == "language":  # detected where a row does not say it
            given = [value or _language(example) for value, example in zip(given, examples, strict=True)]
        return _levels([None if value is None else _named(value) for value in given]), None
    built_in = BUILT_IN.get(name)
    return built_in(examples) if built_in else ([()] * len(examples), None)


def _levels(values: Sequence[str | None]) -> Values:
    """`upper/lower` counts at both levels, in a column in which all values are written so."""
    two = all(value is None or _is_two_level(value) for value in values)
    return [() if value is None else (value.partition("/")[0], value) if two else (value,) for value in values]


def _is_two_level(value: str) -> bool:
    upper, slash, lower = value.partition("/")
    return bool(slash and upper.strip() and lower.strip() and "/" not in lower)


def _named(value: object) -> str:
    text = "/".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)
    text = " ".join(text.split()) or "(empty)"
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _parts(values: Values, order: Sequence[str] | None) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, row in enumerate(values):
        for value in row:
            found.setdefault(value, []).append(place)
    if order is not None:
        return {value: found[value] for value in order if value in found}
    if len(found) <= MOST:
        return dict(sorted(found.items()))
    frequent = sorted(found, key=lambda value: (-len(found[value]), value))
    rest = sorted({place for value in frequent[MOST:] for place in found[value]})
    kept = {value: found[value] for value in sorted(frequent[:MOST])}
    return {**kept, f"({len(found) - MOST} other values)": rest}


# -- what needs no column ---------------------------------------------------------------------------------------------
def _asked(example: Example) -> str:
    """The last question, or all that stands before the answer where nobody asks."""
    users = [message.content for message in example.prompt if message.role == "user"]
    return users[-1] if users else "\n".join(message.content for message in example.prompt)


def _language(example: Example) -> str:
    """The language of the question, else of the answer; `unknown` for code, numbers and a few words alone."""
    from tuneloop.texts.languages import identify
    from tuneloop.texts.words import script_of

    for text in (_asked(example), example.answer.content):
        words = identify(text).words
        if words:
            return max(words, key=lambda code: words[code])
    script = script_of(_asked(example))
    return script if script in ("zh", "ja", "ko") else "unknown"


def _label(examples: Sequence[Example]) -> Values:
    labels = labels_of([example.answer.content.strip() or None for example in examples])
    return [(text,) if (text := example.answer.content.strip()) in labels else () for example in examples]


def words_as_read(text: str) -> int:
    """Words of a text in any writing; a Chinese or Japanese word has about one and a half characters."""
    found = letters(text)
    return count_words(text) - (found.han + found.kana) // 3


def _length(examples: Sequence[Example]) -> tuple[Values, Sequence[str] | None]:
    """Thirds of the examples by the length of their question."""
    lengths = [words_as_read(_asked(example)) for example in examples]
    ordered = sorted(lengths)
    first, second = ordered[(len(ordered) - 1) // 3], ordered[(len(ordered) - 1) * 2 // 3]
    names = (f"short (≤ {first} words)", f"medium ({first + 1}–{second} words)", f"long (> {second} words)")
    return [(names[(length > first) + (length > second)],) for length in lengths], names


def _plain(value: Callable[[Example], str], examples: Sequence[Example]) -> tuple[Values, Sequence[str] | None]:
    return [(value(example),) for example in examples], None


BUILT_IN: Mapping[str, Callable[[Sequence[Example]], tuple[Values, Sequence[str] | None]]] = {
    "label": lambda examples: (_label(examples), None),
    "language": partial(_plain, _language),
    "length": _length,
    "source": partial(_plain, lambda example: example.origin.source),
}
