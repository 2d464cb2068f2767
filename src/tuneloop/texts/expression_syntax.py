"""The syntax of expressions: each of Python's syntax nodes that is allowed, compiled to a function of a row's names."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from tuneloop.core.plugins import did_you_mean, listed
from tuneloop.texts.expression_values import (
    ARITHMETIC,
    COMPARISONS,
    CONSTANTS,
    FUNCTIONS,
    METHODS,
    NAMES,
    ExpressionError,
    add,
    as_number,
    as_text,
    bounded,
    check_pattern,
    check_replacement,
    kind,
)

_HALF = re.compile("[\ud800-\udfff]")
Env = dict[str, Any]
Code = Callable[[Env], Any]


def compile_node(node: ast.expr) -> Code:
    """Raises ExpressionError for what is not allowed."""
    rule = _RULES.get(type(node))
    if rule is None:
        raise _refused(node, f"{type(node).__name__} is not allowed here")
    return rule(node)


def _refused(node: ast.AST, why: str) -> ExpressionError:
    return ExpressionError(f"{why}: {ast.unparse(node)[:80]}")


def _constant(node: ast.Constant) -> Code:
    value = node.value
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise _refused(node, f"{type(value).__name__} is not allowed here")
    if isinstance(value, (int, float)):
        bounded(value)
    elif isinstance(value, str) and _HALF.search(value):
        raise ExpressionError(f"{value!r} has half a character (a surrogate), which no file can hold")
    return lambda env: value


def _name(node: ast.Name) -> Code:
    name = node.id
    if name in CONSTANTS:
        value = CONSTANTS[name]
        return lambda env: value
    if name not in NAMES:
        if name in FUNCTIONS:
            raise _refused(node, f"{name} is a function; write {name}(…)")
        known = [*NAMES, *FUNCTIONS]
        raise ExpressionError(f"unknown name '{name}'{did_you_mean(name, known)}; known: {', '.join(NAMES)}")
    return operator.itemgetter(name)


def _both(node: ast.BoolOp) -> Code:
    parts = [compile_node(value) for value in node.values]
    wants = isinstance(node.op, ast.And)

    def evaluate(env: Env) -> Any:
        value: Any = None
        for part in parts:
            value = part(env)
            if bool(value) is not wants:
                return value
        return value

    return evaluate


def _unary(node: ast.UnaryOp) -> Code:
    inner = compile_node(node.operand)
    if isinstance(node.op, ast.Not):
        return lambda env: not inner(env)
    if isinstance(node.op, (ast.USub, ast.UAdd)):
        sign = -1 if isinstance(node.op, ast.USub) else 1
        return lambda env: sign * as_number(inner(env))
    raise _refused(node, "this operator is not allowed")


def _binary(node: ast.BinOp) -> Code:
    left, right, symbol = compile_node(node.left), compile_node(node.right), type(node.op)
    if symbol is ast.Add:
        return lambda env: add(left(env), right(env))
    if symbol not in ARITHMETIC:
        raise _refused(node, "this operator is not allowed; there are + - * / // %")
    compute = ARITHMETIC[symbol]
    return lambda env: bounded(compute(as_number(left(env)), as_number(right(env))))


def _compare(node: ast.Compare) -> Code:
    first, rest = compile_node(node.left), [compile_node(value) for value in node.comparators]
    for symbol in node.ops:
        if type(symbol) not in COMPARISONS:
            raise _refused(node, "this comparison is not allowed")
    steps = [(COMPARISONS[type(symbol)], value) for symbol, value in zip(node.ops, rest, strict=True)]

    def evaluate(env: Env) -> bool:
        left = first(env)
        for compare, value in steps:
            right = value(env)
            if not compare(left, right):
                return False
            left = right
        return True

    return evaluate


def _choice(node: ast.IfExp) -> Code:
    test, then, otherwise = compile_node(node.test), compile_node(node.body), compile_node(node.orelse)
    return lambda env: then(env) if test(env) else otherwise(env)


def _sequence(node: ast.List | ast.Tuple | ast.Set) -> Code:
    parts = [compile_node(part) for part in node.elts]
    return lambda env: [part(env) for part in parts]


def _dict(node: ast.Dict) -> Code:
    keys = [compile_node(key) if key is not None else None for key in node.keys]
    if None in keys:
        raise _refused(node, "** is not allowed")
    pairs = list(zip(cast("list[Code]", keys), [compile_node(value) for value in node.values], strict=True))
    return lambda env: {key(env): value(env) for key, value in pairs}


def _subscript(node: ast.Subscript) -> Code:
    whole = compile_node(node.value)
    if isinstance(node.slice, ast.Slice):
        bounds = [
            compile_node(part) if part else None for part in (node.slice.lower, node.slice.upper, node.slice.step)
        ]
        return lambda env: whole(env)[slice(*(part(env) if part else None for part in bounds))]
    index = compile_node(node.slice)
    return lambda env: whole(env)[index(env)]


def _attribute(node: ast.Attribute) -> Code:
    """`meta.label`: a key of a mapping, never an attribute of a Python object."""
    whole, name = compile_node(node.value), node.attr
    if isinstance(node.value, ast.Name) and node.value.id not in ("meta", "messages"):
        raise _refused(node, f"{node.value.id} has nothing inside; a method is written {node.value.id}.{name}(…)")

    def evaluate(env: Env) -> Any:
        value = whole(env)
        if not isinstance(value, Mapping):
            raise TypeError(f"'.{name}' of {kind(value)}; only columns and messages have names inside")
        if name not in value:
            known = list(cast("Mapping[str, Any]", value))
            raise LookupError(
                f"no '{name}' in this row{did_you_mean(name, known)}; there: {listed(known) or 'nothing'}"
            )
        return value[name]

    return evaluate


def _call(node: ast.Call) -> Code:
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise _refused(node, "write the arguments one after the other, without names")
    arguments = [compile_node(argument) for argument in node.args]
    if isinstance(node.func, ast.Attribute):
        return _method(node, node.func, arguments)
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        raise ExpressionError(
            f"unknown function '{name}'{did_you_mean(name, FUNCTIONS)}; known: {', '.join(FUNCTIONS)}"
        )
    function, counts = FUNCTIONS[node.func.id]
    if len(arguments) not in counts:
        raise _refused(node, f"{node.func.id} takes {' or '.join(map(str, counts))} argument(s), not {len(arguments)}")
    if node.func.id == "matches" and isinstance(node.args[0], ast.Constant):
        check_pattern(node.args[0].value)
    return lambda env: function(*(argument(env) for argument in arguments))


def _method(node: ast.Call, func: ast.Attribute, arguments: Sequence[Code]) -> Code:
    name, whole = func.attr, compile_node(func.value)
    if name not in METHODS:
        raise _refused(node, f"unknown method '{name}'{did_you_mean(name, METHODS)}; known: {', '.join(METHODS)}")

    def evaluate(env: Env) -> Any:
        value = whole(env)
        given = [argument(env) for argument in arguments]
        if name == "get":
            if not isinstance(value, Mapping):
                raise TypeError(f".get of {kind(value)}; only columns and messages have it")
            return cast("Mapping[Any, Any]", value).get(*given)
        text = as_text(value, f".{name}")
        if name == "replace":
            check_replacement(text, given)
        elif name in ("startswith", "endswith"):  # Python wants a tuple of beginnings; lists are all there is here
            given = [tuple(part) if isinstance(part, list) else part for part in given]
        return getattr(text, name)(*given)

    return evaluate


_RULES: dict[type[ast.expr], Callable[[Any], Code]] = {
    ast.Constant: _constant, ast.Name: _name, ast.BoolOp: _both, ast.UnaryOp: _unary, ast.BinOp: _binary,
    ast.Compare: _compare, ast.IfExp: _choice, ast.List: _sequence, ast.Tuple: _sequence, ast.Set: _sequence,
    ast.Dict: _dict, ast.Subscript: _subscript, ast.Attribute: _attribute, ast.Call: _call,
}  # fmt: skip
