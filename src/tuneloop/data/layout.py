"""The user's own words for a file's columns: `columns:` renames, `template:` writes new ones, or whole conversations.

Knows no format; says which one reads what a template writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean, listed
from tuneloop.data.formats import RowError

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from tuneloop.data.config import TemplateMessage
    from tuneloop.data.read import Raw

ROW = "row"
"""The name under which a template finds the whole row."""
WHOLE = "*"
"""Among the used fields: the row as a whole, all of its fields perhaps."""


class Layout:
    """Turns a raw record into one with the names that formats know.

    `explicit`: only the named columns may be interpreted, all others go to meta at once (format `table`, and whenever
    there is a template).
    """

    def __init__(
        self, columns: Mapping[str, str], template: Mapping[str, str] | Sequence[TemplateMessage], explicit: bool
    ) -> None:
        self.columns = dict(columns)
        self.explicit = (explicit and bool(columns)) or bool(template)
        texts = dict(template) if isinstance(template, Mapping) else {}
        self.messages = [] if isinstance(template, Mapping) else list(template)
        self._contents = [message.content for message in self.messages]
        self.used = tuple(dict.fromkeys([*self.columns.values(), *fields([*texts.values(), *self._contents])]))
        """The fields of a record that are read, each once."""
        environment = sandbox() if template else None
        self._roles: dict[str, Template] = {}
        self._turns: list[Template] = []
        if environment is not None:
            self._roles = {role: environment.from_string(text) for role, text in texts.items()}
            self._turns = [environment.from_string(text) for text in self._contents]

    def check(self, raw: Raw, source: str) -> None:
        """Raises DataError for a field that no row has, in `columns:` or in a template."""
        if not self.used:
            return
        head = raw.head()
        missing = [name for name in self.used if name != WHOLE and not any(name in record for record in head)]
        for record in raw.records() if missing else ():  # few rows may have it: all are asked before it is an error
            missing = [name for name in missing if name not in record]
            if not missing:
                return
        if missing:
            known = list(dict.fromkeys(key for record in head for key in record))
            hint = did_you_mean(missing[0], known)
            raise DataError(f"{source} has no column '{missing[0]}'{hint}; its columns: {listed(known)}")

    def apply(self, record: JsonObject) -> tuple[JsonObject, JsonObject]:
        """(the record for the format, columns that are meta at once). Raises RowError when a template fails."""
        if not self.columns and not self._roles and not self._turns:
            return record, {}
        named = {role: record[column] for role, column in self.columns.items() if column in record}
        for role, template in self._roles.items():
            named[role] = _render(f"template for {role}", template, record)
        if self._turns:
            named["messages"] = self._converse(record)
        taken = set(self.columns.values())
        # a column whose name is now taken by another one stays visible, under a name of its own
        others = {f"column_{key}" if key in named else key: value for key, value in record.items() if key not in taken}
        return (named, others) if self.explicit else ({**named, **others}, {})

    def _converse(self, record: JsonObject) -> list[JsonObject]:
        """The turns that the template writes. A system prompt may come out empty, and is then left out."""
        turns: list[JsonObject] = []
        for number, (message, template) in enumerate(zip(self.messages, self._turns, strict=True)):
            where = f"template, message {number} ({message.role})"
            content = _render(where, template, record)
            if not content.strip() and message.role == "system":
                continue
            if not content.strip() and message.role == "user":
                raise RowError(f"{where}: the text is empty")
            weight = {} if message.train is None else {"train": message.train}
            turns.append({"role": message.role, "content": content, **weight})
        return turns


def implied_format(columns: Mapping[str, str], template: Mapping[str, str] | Sequence[TemplateMessage]) -> str | None:
    """The format that `auto` means where the recipe itself says what the columns are; None: look at the rows."""
    if template:
        return "table" if isinstance(template, Mapping) else "messages"
    return "table" if columns.keys() & {"prompt", "response"} else None


def sandbox() -> ImmutableSandboxedEnvironment:
    """Templates come with recipes that people share: no access to Python, and a missing column is an error."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_printable, keep_trailing_newline=True
    )
    environment.filters["join"] = _join
    environment.filters["tojson"] = _to_json
    return environment


def fields(texts: Sequence[str]) -> list[str]:
    """The fields of a row that templates read, in alphabetical order; WHOLE where one takes the row as a whole."""
    from jinja2 import meta, nodes

    environment = sandbox() if texts else None
    found: set[str] = set()
    for text in texts:
        assert environment is not None
        tree = environment.parse(text)
        found |= meta.find_undeclared_variables(tree) - set(environment.globals)
        parts: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
        of_row = [part for part in parts if isinstance(part.node, nodes.Name) and part.node.name == ROW]
        named = {name for part in of_row if (name := _field_of(part)) is not None}
        whole = sum(name.name == ROW for name in tree.find_all(nodes.Name)) > sum(
            _field_of(part) is not None for part in of_row
        )
        found |= named | ({WHOLE} if whole else set())
    return sorted(found - {ROW})


def _field_of(part: Any) -> str | None:
    """`row.age` and `row["age"]` name a field; `row.items()` and `row[name]` do not."""
    from jinja2 import nodes

    if isinstance(part, nodes.Getattr):
        return None if hasattr(dict, part.attr) else part.attr
    return part.arg.value if isinstance(part.arg, nodes.Const) and isinstance(part.arg.value, str) else None


def _render(where: str, template: Template, record: JsonObject) -> str:
    from jinja2 import TemplateError, UndefinedError

    try:
        return template.render({ROW: record, **record})
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        evidence = {"error": type(error).__name__}
        if isinstance(error, UndefinedError) and "'" in str(error):
            evidence["field"] = _name_in(str(error))
        raise RowError(f"{where}: {error}", **evidence) from error


def _name_in(message: str) -> str:
    """The field in "'age' is undefined" and in "'dict object' has no attribute 'age'"."""
    quoted = message.split("'")[1::2]
    return quoted[-1] if "has no" in message else quoted[0]


def _printable(value: Any) -> Any:
    """Refuses what Jinja would print in Python's words into the training data."""
    if value is None:
        raise ValueError("a printed column is null; test it with {% if column %}")
    if isinstance(value, (list, dict, tuple)):
        kind = "an object" if isinstance(value, dict) else "a list"
        raise ValueError(f"a printed column is {kind}; write {{{{ … | join(', ') }}}} or {{{{ … | tojson }}}}")
    return value


def _join(values: Any, separator: str = "") -> str:
    """Jinja's own takes a text apart into its letters, and prints nulls."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise ValueError(f"join needs a list, found {type(values).__name__}: {str(values)[:40]!r}")
    return separator.join(str(_printable(value)) for value in values)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own escapes Chinese and the signs of HTML, and sorts the keys."""
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)
