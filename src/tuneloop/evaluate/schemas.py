"""JSON Schemas that people wrote, held against values of any kind: no network, no file, no pattern without end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from tuneloop.core import jsonl
from tuneloop.texts import patterns


@lru_cache(maxsize=256)
def validator_of(schema: str) -> Any:
    """The validator of a schema, given as JSON. Raises ValueError saying what is wrong with it."""
    from jsonschema import Draft202012Validator, SchemaError, validators
    from referencing import Registry

    try:
        value = jsonl.parse(schema)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the schema is no JSON: {error}") from None
    if not isinstance(value, (dict, bool)):
        raise ValueError("the schema is no JSON object")
    kind: Any = validators.validator_for(value, default=Draft202012Validator)
    try:
        kind.check_schema(value)
    except SchemaError as error:
        place = "/".join(map(str, error.path))
        raise ValueError(f"the schema is none{f' at {place}' if place else ''}: {error.message[:200]}") from None
    # its own search is Python's, which some patterns keep busy for ever; an empty registry never fetches a reference
    if '"unevaluatedProperties"' in schema and '"patternProperties"' in schema:
        raise ValueError("unevaluatedProperties beside patternProperties is not supported; use additionalProperties")
    own = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional}
    return validators.extend(kind, own)(value, registry=Registry())


def problem_with(schema: str, value: Any) -> str | None:
    """In what a value does not fit: the schema's keyword and the place, such as `required at /items/*`, or None.

    Raises ValueError where the schema cannot be used.
    """
    from referencing.exceptions import Unresolvable

    try:
        error = next(validator_of(schema).iter_errors(value), None)
    except Unresolvable as missing:
        raise ValueError(f"the schema refers to something outside itself: {missing.ref}") from None
    except RecursionError:
        raise ValueError("the schema refers to itself without end, or the value is nested too deeply") from None
    except TimeoutError as slow:
        raise ValueError(f"the schema's pattern {slow}") from None
    if error is None:
        return None
    place = "/".join("*" if isinstance(part, int) else part for part in error.absolute_path)
    return f"{error.validator} at /{place}"


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not patterns.found(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, given: dict[str, Any], value: Any, schema: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for pattern, inner in given.items():
            for key, part in value.items():
                if patterns.found(pattern, key):
                    yield from validator.descend(part, inner, path=key, schema_path=pattern)


def _additional(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, dict):
        known, given = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, part in value.items():
            if key not in known and not any(patterns.found(pattern, key) for pattern in given):
                if inner is False:
                    yield ValidationError(f"{key!r} is not expected")
                else:
                    yield from validator.descend(part, inner, path=key)
