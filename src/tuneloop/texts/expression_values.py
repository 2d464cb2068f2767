"""The names, functions, methods and operators of expressions. Nothing here takes long or makes large values."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.texts import patterns
from tuneloop.texts.words import count_words

LARGEST = 2**63  # numbers; beyond it, a few multiplications make ones that fill the memory
MOST_TEXT = 1_000_000  # characters of a text that an expression makes or searches with a pattern


class ExpressionError(Exception):
    """An expression that cannot be evaluated for a row, or at all."""


def check_replacement(text: str, given: Sequence[Any]) -> None:
    """Raises ValueError where replacing would blow the text up."""
    old, new = (as_text(part, "replace") for part in given[:2])
    if len(text) + (text.count(old) if old else len(text) + 1) * len(new) > MOST_TEXT:
        raise ValueError(f"replace would make a text of more than {MOST_TEXT:,} characters")


def matches(pattern: Any, text: Any) -> bool:
    """Whether a regular expression is found in a text. A catastrophic pattern stops the run, not one row of it."""
    text = as_text(text, "matches")
    if len(text) > MOST_TEXT:
        raise ValueError(f"matches on a text of {len(text):,} characters; write matches(pattern, text[:1000])")
    check_pattern(pattern)
    try:
        return patterns.found(pattern, text)
    except TimeoutError as error:
        raise DataError(f"matches: the pattern {error}") from None


def check_pattern(pattern: Any) -> None:
    """Raises ExpressionError where a value is no regular expression."""
    if "\b" in as_text(pattern, "matches"):
        raise ExpressionError(f'matches: "\\b" is a backspace in plain quotes; write the pattern as r"…": {pattern!r}')
    try:
        patterns.compiled(pattern)
    except ValueError as error:
        raise ExpressionError(f"matches: {error}") from None


def add(left: Any, right: Any) -> Any:
    """Numbers added or texts joined, within the limits."""
    if isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > MOST_TEXT:
            raise ValueError(f"+ would make a text of more than {MOST_TEXT:,} characters")
        return left + right
    if isinstance(left, str) or isinstance(right, str):
        raise TypeError(f"+ of {kind(left)} and {kind(right)}; text(x) makes a text of x")
    return bounded(as_number(left) + as_number(right))


def as_number(value: Any) -> int | float:
    """The number itself. Raises TypeError for anything else."""
    if not isinstance(value, (int, float)):
        hint = "; number(x) reads a number" if isinstance(value, str) else ""
        raise TypeError(f"a number is wanted, not {kind(value)}{hint}")
    return value


def bounded(value: int | float) -> int | float:
    """The number itself. Raises ValueError beyond 64 bits, and for infinity and NaN, which JSON does not have."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise ValueError("a number beyond 64 bits")
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number to go on with")
    return value


def as_text(value: Any, where: str) -> str:
    """The text itself. Raises TypeError, naming the function, for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{where} wants a text, not {kind(value)}")
    return value


def read_number(value: Any) -> int | float:
    """The number that a text states. Raises ValueError where it states none."""
    if not isinstance(value, str):
        return as_number(value)
    text = value.strip()
    try:
        read = int(text) if text.lstrip("+-").isdecimal() and len(text) < 30 else float(text)
    except ValueError:
        raise ValueError(f"the text {text[:40]!r} is no number") from None
    return bounded(read)


def show(value: Any) -> str:
    """A number or a text as text. Raises TypeError for anything else."""
    if isinstance(value, (str, int, float, bool)):
        return str(value)
    raise TypeError(f"text(x) wants a number or a text, not {kind(value)}")


def kind(value: Any) -> str:
    """What a value is called in errors."""
    names = {"str": "a text", "NoneType": "null", "dict": "a mapping", "list": "a list", "bool": "true or false",
             "int": "a number", "float": "a number"}  # fmt: skip
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _contains(left: Any, right: Any) -> bool:
    return left in right


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def evaluate(left: Any, right: Any) -> bool:
        if isinstance(left, str) != isinstance(right, str):
            raise TypeError(f"{kind(left)} cannot be compared with {kind(right)}; number(x) reads a number")
        return compare(left, right)

    return evaluate


CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Is: operator.eq, ast.IsNot: operator.ne,
    ast.Lt: _compared(operator.lt), ast.LtE: _compared(operator.le),
    ast.Gt: _compared(operator.gt), ast.GtE: _compared(operator.ge),
    ast.In: _contains, ast.NotIn: lambda left, right: left not in right,
}  # fmt: skip
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "words": (lambda text: count_words(as_text(text, "words")), (1,)),
    "characters": (lambda text: len(as_text(text, "characters").strip()), (1,)),
    "matches": (matches, (2,)),
    "lower": (lambda text: as_text(text, "lower").lower(), (1,)),
    "len": (len, (1,)),
    "number": (read_number, (1,)),
    "text": (show, (1,)),
}
METHODS = ("startswith", "endswith", "strip", "lstrip", "rstrip", "lower", "upper", "replace", "removeprefix",
           "removesuffix", "count", "find", "split", "get", "isdigit")  # fmt: skip


def question(example: Example) -> int | None:
    """The number of the last user message before the answer."""
    prompt = example.prompt
    return next((number for number in reversed(range(len(prompt))) if prompt[number].role == "user"), None)


def _prompt(example: Example) -> str:
    number = question(example)
    return "" if number is None else example.messages[number].content


NAMES: dict[str, Callable[[Example], Any]] = {
    "prompt": _prompt,
    "answer": lambda example: example.answer.content,
    "rejected": lambda example: "\n".join(message.content for message in example.rejected),
    "messages": lambda example: [message.to_json() for message in example.messages],
    "meta": lambda example: example.meta,
    "label": lambda example: example.meta.get("label"),
    "language": lambda example: example.meta.get("language"),
    "source": lambda example: example.origin.source,
    "row": lambda example: example.origin.row,
}
