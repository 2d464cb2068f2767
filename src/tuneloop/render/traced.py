"""Texts of conversations of a known shape without running the chat template again, as a tracing compiler does it.

What a template writes depends on roles and keys, and on little else: the contents are written out, perhaps trimmed, and
asked a few things. So the template runs once with stand-ins for the contents (symbols.py); its output becomes a list of
fixed texts and contents, and what it asked becomes a tree of questions. Another conversation of the same shape that
gives the same answers is the same list filled in. What stand-ins cannot go through is left to the template itself, and
each new list, and all of the first batch, are compared with what the template itself wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from tuneloop.core.conversation import JsonObject
from tuneloop.render.symbols import Called, Content, Joined, NotTraceable, Parts, Symbol, Text, Trace

if TYPE_CHECKING:
    from jinja2 import Template

LIMIT = 500
"""Traces that are kept of a template; shapes that come after them are rendered by the template itself."""
LONGEST = 200
"""Messages of a conversation that is traced."""
PLAIN, REASONED = ("role", "content"), ("role", "content", "reasoning_content")
Shape = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """The output of a template with places for what depends on the contents."""

    parts: tuple[str, ...]
    contents: tuple[tuple[int, int], ...]
    """Place in `parts` and number of each content that stands there as it is."""
    others: tuple[tuple[int, Text], ...]

    @classmethod
    def of(cls, output: Symbol | str) -> Written:
        """From what a template gave for stand-ins."""
        text: str | Text = output if isinstance(output, str) else output.text
        parts = text.parts if isinstance(text, Joined) else (text,)
        return cls(
            tuple(part if isinstance(part, str) else "" for part in parts),
            tuple((place, part.number) for place, part in enumerate(parts) if isinstance(part, Content)),
            tuple((place, part) for place, part in enumerate(parts) if not isinstance(part, (str, Content))),
        )

    def __bool__(self) -> bool:
        return bool(self.parts)

    def filled(self, contents: Sequence[str]) -> str:
        """The text for these contents."""
        out = [*self.parts]
        for place, number in self.contents:
            out[place] = contents[number]
        for place, text in self.others:
            out[place] = text.of(contents)
        return "".join(out)


NOWHERE = Written((), (), ())
"""Stands where a template cannot be followed."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A question to the contents, and what follows from each answer that has come up."""

    question: Called
    after: dict[bool, Fork | Written]


class Traces:
    """What is known of a template with its variables."""

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self.variables = dict(variables)
        self.differed = False
        """Whether a trace gave another text than the template, after which none is used."""
        self._template = None if _holds(self.variables) else _compiled(source)
        self._known: dict[Shape, Fork | Written] = {}
        self._left = LIMIT

    def text(self, chat: Sequence[JsonObject], prompt: bool) -> str | None:
        """What the template writes, or None where that is not known."""
        found = _shape(chat, prompt)
        known = self._find(*found) if found else None
        return known.filled(found[1]) if found and known else None

    def learn(self, chat: Sequence[JsonObject], prompt: bool, text: str) -> None:
        """Follows the template through a conversation for which it wrote `text`; or compares, if it is known."""
        found = _shape(chat, prompt)
        template = self._template
        if found is None or template is None or len(chat) > LONGEST:
            return
        shape, contents = found
        known = self._find(shape, contents)
        agrees = True
        if known is None and self._left > 0:
            self._left -= 1
            trace = Trace(contents)
            known = self._followed(template, trace, chat, prompt)
            agrees = self._keep(shape, trace.asked, known)
        if not agrees or (known and known.filled(contents) != text):
            self.differed, self._template = True, None

    def _find(self, shape: Shape, contents: Sequence[str]) -> Written | None:
        known = self._known.get(shape) if self._template is not None else None
        while isinstance(known, Fork):
            known = known.after.get(known.question.of(contents))
        return known

    def _followed(self, template: Template, trace: Trace, chat: Sequence[JsonObject], prompt: bool) -> Written:
        """The template's output for stand-ins; an empty one where it does something with them that is not followed."""
        from jinja2 import TemplateError

        number = iter(range(len(trace.contents)))
        messages = [
            {key: value if key == "role" else trace.content(next(number)) for key, value in message.items()}
            for message in chat
        ]
        given = {**self.variables, "messages": _aliased(messages), "tools": None, "documents": None}
        try:
            context = template.new_context({**given, "add_generation_prompt": prompt})
            output = joined(template.root_render_func(context))
        except (NotTraceable, TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
            return NOWHERE  # the template itself has gone through with this conversation: it lies in the stand-ins
        return NOWHERE if trace.refused else Written.of(output)

    def _keep(self, shape: Shape, asked: Mapping[Called, bool], written: Written) -> bool:
        """Puts an output behind its questions; False where the template asked others of the same answers before."""
        place: dict[Any, Fork | Written] = self._known
        key: Any = shape
        for question, answer in asked.items():
            fork = place.setdefault(key, Fork(question, {}))
            if not isinstance(fork, Fork) or fork.question != question:
                return False
            place, key = fork.after, answer
        place[key] = written
        return True


def _shape(chat: Sequence[JsonObject], prompt: bool) -> tuple[Shape, list[str]] | None:
    """What the output of a template depends on beside the contents, and these; None where they are not texts alone."""
    shape: list[Any] = [prompt]
    contents: list[str] = []
    for message in chat:
        keys = tuple(message)
        shape.append(message["role"])
        if keys == PLAIN:
            contents.append(message["content"])
        elif keys == REASONED:
            shape.append(REASONED)
            contents += (message["content"], message["reasoning_content"])
        else:
            return None
    return (tuple(shape), contents) if {*map(type, contents)} == {str} else None


# -- the template with stand-ins --------------------------------------------------------------------------------------
STRUCTURAL = frozenset({"length", "count", "first", "last", "list", "reverse", "items", "map",
                        "select", "reject", "selectattr", "rejectattr"})  # fmt: skip
"""Filters that handle lists and mappings and look at no text in them themselves."""
KINDS = {"string": True, "defined": True, "iterable": True, "sequence": True} | dict.fromkeys(
    ("undefined", "none", "mapping", "number", "integer", "float", "boolean", "true", "false", "callable"), False
)
"""What tests say of every text."""
EQUAL = frozenset({"eq", "==", "equalto"})


def _compiled(source: str) -> Template | None:
    """The template in an environment that knows stand-ins; None where not all that it does goes past them."""
    from jinja2 import nodes
    from transformers.utils import chat_template_utils

    compiled: Any = getattr(chat_template_utils, "_compile_jinja_template", None)
    if compiled is None:  # transformers of another version
        return None
    environment = compiled(source).environment.overlay()
    tree = environment.parse(source)
    chance = any(name.name == "lipsum" for name in tree.find_all(nodes.Name))
    if chance or tree.find(nodes.EvalContextModifier) is not None:
        return None
    _prepare(environment)
    return environment.from_string(source)


def _prepare(environment: Any) -> None:
    """Makes an environment of Jinja keep stand-ins where it would make text of them, or look at their kind."""
    from jinja2.compiler import CodeGenerator

    class Keeping(CodeGenerator):
        """Python in which `environment.shown` stands in place of `str`, for `~` too."""

        def _output_child_pre(self, node: Any, frame: Any, finalize: Any) -> None:
            self.write("environment.shown(")
            if finalize.src is not None:
                self.write(finalize.src)

        def visit_Concat(self, node: Any, frame: Any) -> None:
            self.write("environment.concat(map(environment.shown, (")
            for inner in node.nodes:
                self.visit(inner, frame)
                self.write(", ")
            self.write(")))")

    attribute, item = environment.getattr, environment.getitem

    def getattr_(value: Any, name: str) -> Any:
        if not isinstance(value, (Symbol, Parts)):
            return attribute(value, name)
        if hasattr(str, name) and not name.startswith("_"):
            return value.method(name)
        return attribute("", name) if isinstance(value, Symbol) else _refused(name, value)

    def getitem(value: Any, key: Any) -> Any:
        if isinstance(key, (Symbol, Parts)):
            _refused("[]", key)
        return getattr_(value, key) if isinstance(value, (Symbol, Parts)) and isinstance(key, str) else item(value, key)

    def call_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        symbol = next((side for side in (left, right) if isinstance(side, (Symbol, Parts))), None)
        return environment.binop_table[operator](left, right) if symbol is None else _refused(operator, symbol)

    environment.code_generator_class, environment.concat, environment.shown = Keeping, joined, _shown
    environment.getattr, environment.getitem = getattr_, getitem
    environment.call_binop, environment.intercepted_binops = call_binop, frozenset("%")
    environment.filters = {name: _filter(name, found) for name, found in environment.filters.items()}
    environment.tests = {name: _test(name, found) for name, found in environment.tests.items()}


def joined(pieces: Iterable[str | Symbol]) -> str | Symbol:
    """Pieces of output as one."""
    out = list(pieces)
    symbol = next((piece for piece in out if isinstance(piece, Symbol)), None)
    return "".join(piece for piece in out if isinstance(piece, str)) if symbol is None else symbol.trace.join(out)


def _shown(value: Any) -> str | Symbol:
    return value if isinstance(value, Symbol) else str(value)


def _filter(name: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that does for stand-ins what it does for texts, or refuses."""
    skipped = int(hasattr(found, "jinja_pass_arg"))

    @wraps(found)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        value, *others = arguments[skipped:]
        simple = not _holds([*others, *named.values()])
        if isinstance(value, Symbol) and name == "trim" and not named:
            return value.method("strip")(*others)
        if isinstance(value, Symbol) and name == "string":
            return value
        if isinstance(value, Parts) and name in ("first", "last"):
            return value[0 if name == "first" else -1]
        handled = name in ("default", "d") or (name in STRUCTURAL and simple and not isinstance(value, (Symbol, Parts)))
        if name == "random" or not (handled or (simple and not _holds(value))):
            _refused(name, value)
        return found(*arguments, **named)

    return wrapped


def _test(name: str, found: Callable[..., Any]) -> Callable[..., Any]:
    """A test that says of stand-ins what it says of texts, or refuses."""
    skipped = int(hasattr(found, "jinja_pass_arg"))

    @wraps(found)
    def wrapped(*arguments: Any) -> Any:
        value, *others = arguments[skipped:]
        if isinstance(value, Symbol) and name in KINDS:
            return KINDS[name]
        if isinstance(value, Symbol) and len(others) == 1 and name in EQUAL:
            return value == others[0]
        if _holds(others) or (name not in KINDS and _holds(value)) or isinstance(value, Parts):
            _refused(name, value)
        return found(*arguments)

    return wrapped


def _holds(value: Any) -> bool:
    """Whether there may be a stand-in somewhere in a value."""
    from jinja2 import Undefined

    if isinstance(value, dict):
        return _holds([*value.keys(), *value.values()])  # type: ignore[reportUnknownMemberType]
    if isinstance(value, (list, tuple)):
        return any(map(_holds, value))  # type: ignore[reportUnknownArgumentType]
    return not isinstance(value, (str, int, float, type(None), Undefined, range))


def _refused(what: str, value: Any) -> NoReturn:
    if isinstance(value, (Symbol, Parts)):
        value.trace.refuse(what)
    raise NotTraceable(what)


def _aliased(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasoning under all names that it is given to templates under."""
    from transformers.utils import chat_template_utils

    aliases: Any = getattr(chat_template_utils, "_alias_reasoning_fields", None)
    return messages if aliases is None else aliases(messages)
