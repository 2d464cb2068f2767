"""The user's own words for a file's columns: `columns:` renames, `template:` writes new ones. Knows no format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import did_you_mean
from tuneloop.data.formats import RowError

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment


class Layout:
    """Turns a raw record into one with the names that formats know.

    `explicit`: only the named columns may be interpreted, all others go to meta at once (format `table`, and whenever
    there is a template).
    """

    def __init__(self, columns: Mapping[str, str], template: Mapping[str, str], explicit: bool) -> None:
        self.columns, self.template_texts = dict(columns), dict(template)
        self.explicit = (explicit and bool(columns)) or bool(template)
        environment = sandbox() if template else None
        self.templates: dict[str, Template] = {
            name: environment.from_string(text) for name, text in template.items() if environment is not None
        }

    def check(self, records: Sequence[JsonObject], source: str) -> None:
        """Raises DataError for a column that no record has, in `columns:` or in a template."""
        for name in [*self.columns.values(), *_variables(self.template_texts.values())]:
            if not any(name in record for record in records):
                known = list(dict.fromkeys(key for record in records[:200] for key in record))
                hint = did_you_mean(name, known)
                raise DataError(f"{source} has no column '{name}'{hint}; its columns: {', '.join(known)}")

    def apply(self, record: JsonObject) -> tuple[JsonObject, JsonObject]:
        """(the record for the format, columns that are meta at once). Raises RowError when a template fails."""
        if not self.columns and not self.templates:
            return record, {}
        named = {role: record[column] for role, column in self.columns.items() if column in record}
        for role, template in self.templates.items():
            named[role] = _render(role, template, record)
        taken = set(self.columns.values())
        # a column whose name is now taken by another one stays visible, under a name of its own
        others = {f"column_{key}" if key in named else key: value for key, value in record.items() if key not in taken}
        return (named, others) if self.explicit else ({**named, **others}, {})


def sandbox() -> ImmutableSandboxedEnvironment:
    """Templates come with recipes that people share: no access to Python, and a missing column is an error."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_not_null, keep_trailing_newline=True)


def _not_null(value: Any) -> Any:
    if value is None:  # Jinja would print the word "None" into the training data
        raise ValueError("a printed column is null; test it with {% if column %}")
    return value


def _render(role: str, template: Template, record: JsonObject) -> str:
    from jinja2 import TemplateError

    try:
        return template.render({"row": record, **record})
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise RowError(f"template for {role}: {error}", error=type(error).__name__) from error


def _variables(templates: Any) -> list[str]:
    from jinja2 import meta

    environment = sandbox() if templates else None
    found = [meta.find_undeclared_variables(environment.parse(text)) for text in templates] if environment else []
    return sorted(set().union(*found) - {"row", *(environment.globals if environment else ())})
