"""Stand-ins for the texts of a conversation: they write down what a chat template makes of them and asks of them.

A `Symbol` is no str and has no characters, so nothing that reads characters can go past it: what is written for text in
C (joining, formatting, JSON, `in` another text) fails or calls a method here, and a method here either writes down what
was done or refuses. What it refuses is also marked in the trace, so that no `except` of a template engine hides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol


class NotTraceable(Exception):
    """A template did something with a text that is not followed here."""


class Text(Protocol):
    """How a text follows from the contents of a conversation; hashable."""

    def of(self, contents: Sequence[str]) -> str:
        """The text itself."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """One of the contents as it is."""

    number: int

    def of(self, contents: Sequence[str]) -> str:
        """As Text."""
        return contents[self.number]


@dataclass(frozen=True, slots=True)
class Joined:
    """Several texts, some of them fixed, one after the other."""

    parts: tuple[str | Text, ...]

    def of(self, contents: Sequence[str]) -> str:
        """As Text."""
        return "".join([part if isinstance(part, str) else part.of(contents) for part in self.parts])


@dataclass(frozen=True, slots=True)
class Called:
    """What a method of str gives for a text."""

    method: Callable[..., Any]
    inner: Text
    arguments: tuple[Any, ...]

    def of(self, contents: Sequence[str]) -> Any:
        """As Text; also True or False, for a question, or parts."""
        return self.method(self.inner.of(contents), *self.arguments)


@dataclass(frozen=True, slots=True)
class Picked:
    """One of the parts of a text."""

    parts: Called
    index: int

    def of(self, contents: Sequence[str]) -> str:
        """As Text."""
        return self.parts.of(contents)[self.index]


class Trace:
    """What was asked of the contents of one conversation, in order, and the answers."""

    def __init__(self, contents: Sequence[str]) -> None:
        self.contents = contents
        self.asked: dict[Called, bool] = {}
        self.refused = ""

    def content(self, number: int) -> Symbol:
        """The stand-in of one of the contents."""
        return Symbol(self, Content(number))

    def ask(self, text: Text, method: Callable[..., bool], *arguments: Any) -> bool:
        """Answers for this conversation, and writes down the question."""
        question = Called(method, text, arguments)
        if question not in self.asked:
            self.asked[question] = question.of(self.contents)
        return self.asked[question]

    def refuse(self, what: str) -> NoReturn:
        """Raises NotTraceable."""
        self.refused = what
        raise NotTraceable(what)

    def join(self, parts: Iterable[str | Symbol]) -> Symbol:
        """Texts one after the other."""
        out: list[str | Text] = []
        for part in parts:
            found = part if isinstance(part, str) else part.text
            for inner in found.parts if isinstance(found, Joined) else (found,):
                if isinstance(inner, str) and out and isinstance(out[-1], str):
                    out[-1] = "".join((out[-1], inner))
                else:
                    out.append(inner)
        return Symbol(self, Joined(tuple(out)))


CHANGES = (
    "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "replace", "lower", "upper", "title", "capitalize",
)  # fmt: skip
"""Methods of str that give another text, whatever the text is."""
QUESTIONS = ("startswith", "endswith")
_ENDS, _THREE = (0, -1), (0, 1, 2, -1, -2, -3)
CUTS = {"split": _ENDS, "rsplit": _ENDS, "partition": _THREE, "rpartition": _THREE}
"""Methods that cut a text at another one, and the parts that there always are."""


class Symbol:
    """Stands for a text in a template."""

    __slots__ = ("text", "trace")

    def __init__(self, trace: Trace, text: Text) -> None:
        self.trace, self.text = trace, text

    def method(self, name: str) -> Callable[..., Any]:
        """A method of str, of which those that are followed take plain arguments."""
        if name not in CHANGES and name not in QUESTIONS and name not in CUTS:
            self.trace.refuse(name)
        method: Callable[..., Any] = getattr(str, name)

        def called(*arguments: Any, **named: Any) -> Any:
            if named or not all(map(_is_plain, arguments)):
                self.trace.refuse(f"{name} with other texts")
            if name in QUESTIONS:
                return self.trace.ask(self.text, method, *arguments)
            if name in CUTS and (not arguments or type(arguments[0]) is not str):
                self.trace.refuse(f"{name} at white space")  # nothing may be left of it
            found = Called(method, self.text, arguments)
            found.of(self.trace.contents)  # wrong arguments fail here as they would there
            return Symbol(self.trace, found) if name in CHANGES else Parts(self.trace, found, CUTS[name])

        return called

    def __add__(self, other: Any) -> Symbol:
        return self.trace.join((self, other)) if _is_text(other) else _refuse(self, "+")

    def __radd__(self, other: Any) -> Symbol:
        return self.trace.join((other, self)) if _is_text(other) else _refuse(self, "+")

    def __bool__(self) -> bool:
        return self.trace.ask(self.text, str.__ne__, "")

    def __contains__(self, part: Any) -> bool:
        return self.trace.ask(self.text, str.__contains__, part) if type(part) is str else _refuse(self, "in")

    def __eq__(self, other: object) -> bool:
        if type(other) is str:
            return self.trace.ask(self.text, str.__eq__, other)
        return _refuse(self, "==") if isinstance(other, (str, Symbol)) else False

    def __getitem__(self, key: Any) -> NoReturn:
        _refuse(self, "[]")

    def __hash__(self) -> int:
        _refuse(self, "as a key")

    def __len__(self) -> int:
        _refuse(self, "length")

    def __iter__(self) -> NoReturn:
        _refuse(self, "each character")

    def __str__(self) -> str:
        _refuse(self, "str")

    def __repr__(self) -> str:
        _refuse(self, "repr")

    def __format__(self, spec: str) -> str:
        _refuse(self, "format")

    def __index__(self) -> int:
        _refuse(self, "number")

    def __lt__(self, other: Any) -> bool:
        _refuse(self, "order")

    __int__ = __float__ = __index__
    __le__ = __gt__ = __ge__ = __lt__


class Parts:
    """Stands for what cutting a text gives: a list of which only the parts that are always there can be taken."""

    __slots__ = ("_called", "_sure", "trace")

    def __init__(self, trace: Trace, called: Called, sure: Sequence[int]) -> None:
        self.trace, self._called, self._sure = trace, called, sure

    def method(self, name: str) -> NoReturn:
        """A list has others than a text."""
        _refuse(self, name)

    def __getitem__(self, key: Any) -> Symbol:
        if type(key) is not int or key not in self._sure:
            _refuse(self, "[]")
        return Symbol(self.trace, Picked(self._called, key))

    def __bool__(self) -> bool:
        _refuse(self, "truth")

    def __eq__(self, other: object) -> bool:
        _refuse(self, "==")

    __hash__ = Symbol.__hash__
    __len__, __iter__, __index__ = Symbol.__len__, Symbol.__iter__, Symbol.__index__
    __str__, __repr__, __format__ = Symbol.__str__, Symbol.__repr__, Symbol.__format__
    __contains__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__


def _refuse(symbol: Symbol | Parts, what: str) -> NoReturn:
    symbol.trace.refuse(what)


def _is_text(value: Any) -> bool:
    """No subclasses: those of Jinja change what is added to them."""
    return type(value) in (str, Symbol)


def _is_plain(value: Any) -> bool:
    return type(value) in (str, int, type(None)) or (type(value) is tuple and all(map(_is_plain, value)))
