"""Limits by themselves: rates with a clock of our own, JSON and schemas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.serve.errors import Refused
from tuneloop.serve.limits import MOST_BUCKETS, Rate, check_schema, parse


def test_a_minutes_worth_at_once_then_so_many_a_minute() -> None:
    now = 0.0
    rate = Rate(60, "requests", lambda: now)
    for _ in range(60):
        rate.take("a")
    with pytest.raises(Refused) as refused:
        rate.take("a")
    assert refused.value.headers == {"Retry-After": "1"}
    rate.take("b")
    now = 1.001
    rate.take("a")
    with pytest.raises(Refused):
        rate.take("a")
    now = 10_000.0
    for _ in range(60):
        rate.take("a")


def test_keys_that_are_not_seen_any_more_are_forgotten() -> None:
    now = 0.0
    rate = Rate(60, "requests", lambda: now)
    for number in range(MOST_BUCKETS):
        rate.take(str(number))
        now += 0.001
    now += 100
    rate.take("new")
    assert len(rate._buckets) == 1


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(JSON, st.integers(0, 6))
def test_json_is_read_up_to_its_depth(value: Any, most: int) -> None:
    import orjson

    text = orjson.dumps(value)
    # an empty list is no level below another: nothing is in it
    if depth(value) <= most:
        assert parse(text, most) == value
    elif depth(value) > most + 1:
        with pytest.raises(Refused):
            parse(text, most)


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_hostile_depth_is_refused_not_a_fault(opened: bytes) -> None:
    for levels in (100, 2_000, 200_000):
        with pytest.raises(Refused):
            parse(opened * levels, 32)


def test_a_schema_at_its_limits() -> None:
    nested: Any = {"type": "string"}
    for _ in range(3):
        nested = {"not": nested}
    check_schema(nested, "x", 1000, 4)
    with pytest.raises(Refused, match="deeper"):
        check_schema(nested, "x", 1000, 2)
    with pytest.raises(Refused, match="bytes"):
        check_schema({"const": "x" * 1000}, "x", 1000, 4)
    with pytest.raises(Refused, match="outside itself"):
        check_schema({"a": [[{"$ref": "http://x"}]]}, "x", 1000, 9)
    check_schema({"properties": {"$ref": {"type": "string"}}}, "x", 1000, 9)
