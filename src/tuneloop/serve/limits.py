"""Limits that hold for every client: how often, how deep, how large. Knows nothing of what is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson

from tuneloop.serve.errors import Refused, busy

MOST_BUCKETS = 10_000  # of keys that were seen lately; full buckets are forgotten first


class Rate:
    """So many a minute for each key, a minute's worth at once (a token bucket)."""

    def __init__(self, per_minute: int, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self._what, self._clock = per_minute, what, clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> None:
        """One of them. Raises Refused (429) with the seconds until there is another."""
        now = self._clock()
        left = self._left(key, now)
        if left < 1:
            raise busy(f"more than {self.per_minute} {self._what} a minute", (1 - left) * 60 / self.per_minute)
        if len(self._buckets) >= MOST_BUCKETS:
            self._buckets = {k: b for k, b in self._buckets.items() if self._left(k, now) < self.per_minute}
        self._buckets[key] = (left - 1, now)

    def _left(self, key: str, now: float) -> float:
        left, then = self._buckets.get(key, (float(self.per_minute), now))
        return min(float(self.per_minute), left + (now - then) * self.per_minute / 60)


class Pace:
    """How long the next message of one connection must wait, so that its messages are no more than so many a second.

    `burst` seconds' worth may come at once. Nothing is refused: who is held up reads no further, and TCP tells the
    sender.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._each, self._burst, self._clock = 1 / per_second, burst, clock
        self._due = clock() - burst

    def delay(self, cost: float = 1.0) -> float:
        """Seconds that a message of this cost waits."""
        now = self._clock()
        self._due = max(self._due, now - self._burst) + cost * self._each
        return max(0.0, self._due - now)


def parse(body: bytes, depth: int) -> Any:
    """JSON of limited depth. Raises Refused for what is none: NaN and halves of surrogate pairs are none either.

    orjson, because the standard parser answers deep nesting with a RecursionError, and takes both of those.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the request is no JSON: {error}", code="invalid_json") from None
    if _is_deeper(value, depth):
        raise Refused(400, f"the request is nested deeper than {depth} levels", code="too_deep")
    return value


def check_schema(schema: Mapping[str, Any], param: str, most_bytes: int, most_depth: int) -> None:
    """Raises Refused for a JSON Schema that is too large, too deep, or refers to anything outside itself."""
    size = len(orjson.dumps(schema))
    if size > most_bytes:
        raise Refused(400, f"'{param}' has {size:,} bytes (limit {most_bytes:,})", param=param, code="schema_too_large")
    if _is_deeper(schema, most_depth):
        raise Refused(400, f"'{param}' is nested deeper than {most_depth}", param=param, code="schema_too_deep")
    level: list[Any] = [schema]
    while level:
        for value in level:
            for key in ("$ref", "$dynamicRef"):
                target = value.get(key, "#")
                if isinstance(target, str) and not target.startswith("#"):  # a URL or a file: nothing is fetched
                    raise Refused(400, f"'{param}' refers to '{target[:80]}', outside itself", param=param)
        level = [child for value in level for child in _below(value)]


def _is_deeper(value: Any, depth: int) -> bool:
    """Level by level, because a function that calls itself would run out of stack first."""
    level = [value]
    for _ in range(depth + 1):
        level = [child for value in level for child in _children(value)]
        if not level:
            return False
    return True


def _below(value: Any) -> list[Any]:
    """The objects below an object, those in lists of lists too."""
    found, level = list[Any](), _children(value)
    while level:
        found += [child for child in level if isinstance(child, dict)]
        level = [inner for child in level if isinstance(child, list) for inner in _children(child)]
    return found


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return list(cast("list[Any]", value)) if isinstance(value, list) else []
