"""Expressions over a row, such as `words(answer) >= 3 and label != "spam"`: compiled once, evaluated safely.

A small part of Python's syntax: no assignments, no loops, no access to Python itself, and nothing that takes long or
grows large. Recipes are shared between people, so an expression is not trusted.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from tuneloop.core.conversation import Example
from tuneloop.core.errors import TuneloopError
from tuneloop.texts.expression_syntax import Code, Env, compile_node
from tuneloop.texts.expression_values import CONSTANTS, NAMES, ExpressionError

__all__ = ["Expression", "ExpressionError", "checked", "compile_expression"]

LONGEST = 2_000  # characters of an expression
SHOWN = 80  # characters of a text in the evidence


class Expression(NamedTuple):
    """A compiled expression."""

    text: str
    code: Code
    names: frozenset[str]
    parts: tuple[tuple[str, Code], ...]
    """The calls, columns and names in it, to show what a row had there."""

    def value(self, example: Example) -> Any:
        """The value for a row. Raises ExpressionError saying why there is none."""
        return _evaluate(self.code, self._environment(example))

    def shown(self, example: Example) -> dict[str, Any]:
        """What the parts are for a row: short values only."""
        env = self._environment(example)
        found: dict[str, Any] = {}
        for text, code in self.parts:
            try:
                value = _evaluate(code, env)
            except ExpressionError:
                continue
            if isinstance(value, str):
                value = value if len(value) <= SHOWN else f"{value[:SHOWN]}…"
            if isinstance(value, (str, int, float, type(None))):
                found[text] = value
        return found

    def _environment(self, example: Example) -> Env:
        return {name: NAMES[name](example) for name in self.names}


def _evaluate(code: Code, env: Env) -> Any:
    try:
        return code(env)
    except TuneloopError:  # a ValueError, too, but no fault of the row
        raise
    except KeyError as error:
        raise ExpressionError(f"no key {error}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise ExpressionError(str(error) or type(error).__name__) from error


@lru_cache(maxsize=256)
def compile_expression(text: str) -> Expression:
    """Raises ExpressionError, saying where and what to write instead, for what is no expression of this kind."""
    if len(text) > LONGEST:
        raise ExpressionError(f"an expression of {len(text)} characters; at most {LONGEST} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\\d" in a pattern without r before its quotes
            tree = ast.parse(text.strip(), mode="eval").body
        names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)) & NAMES.keys()
        return Expression(text, compile_node(tree), names, tuple(_parts(tree)))
    except (SyntaxError, ValueError) as error:
        hint = "; compare with ==" if _ASSIGNS.search(text) else ""
        raise ExpressionError(f"not an expression: {error.args[0] if error.args else error}{hint}") from None
    except (RecursionError, MemoryError):
        raise ExpressionError("not an expression: nested too deeply") from None


def _parts(node: ast.AST) -> Iterator[tuple[str, Code]]:
    if isinstance(node, (ast.Call, ast.Attribute, ast.Subscript, ast.Name)):
        if not (isinstance(node, ast.Name) and node.id in CONSTANTS):
            yield ast.unparse(node), compile_node(node)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _parts(child)


_ASSIGNS = re.compile(r"(?<![=!<>])=(?!=)")


def checked(text: str) -> str:
    """For pydantic: the text of a valid expression. Raises ValueError saying what is wrong with it."""
    try:
        compile_expression(text)
    except ExpressionError as error:
        raise ValueError(str(error)) from None
    return text
