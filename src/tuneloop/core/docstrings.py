"""What the strings under the fields of a class say, read from its source when somebody asks.

pydantic can do the same (`use_attribute_docstrings`), but reads and parses the source of each class while it is made:
a fifth of a second at every start, for texts that only the schema and `tuneloop list` show.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise


@cache
def of_fields(cls: type) -> dict[str, str]:
    """Field → the string under it, of inherited fields too; empty where the source cannot be read.

    A class that annotates an inherited field anew gives it its own string, or none.
    """
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        own = _own(one)
        for name in inspect.get_annotations(one):
            found.pop(name, None)
            if name in own:
                found[name] = own[name]
    return found


def _own(cls: type) -> dict[str, str]:
    """Of the fields that the class itself annotates."""
    module = sys.modules.get(cls.__module__)
    node: ast.AST | None = _tree(module.__name__) if module else None
    for name in cls.__qualname__.split("."):
        if node is not None and name != "<locals>":
            node = _defined(node, name)
    if not isinstance(node, ast.ClassDef):
        return {}
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(node.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }  # fmt: skip


@cache
def _tree(module: str) -> ast.Module | None:
    try:
        return ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, SyntaxError):  # typed in at a prompt, or there is no source beside the bytecode
        return None


def _defined(outer: ast.AST, name: str) -> ast.AST | None:
    """The class or function of that name inside another one; of several the last, which is what the name means."""
    return next((node for node in reversed([*_inside(outer)]) if node.name == name), None)


def _inside(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        else:
            yield from _inside(child)
