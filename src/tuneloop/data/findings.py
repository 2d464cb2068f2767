"""Findings of the data card: what a person should know about the data before training on it.

INFO describes, WARN asks for a look, ERROR stops the training unless the recipe waives its code with a reason.
"""

from __future__ import annotations

from typing import Any, Literal

from tuneloop.core.conversation import JsonObject

Level = Literal["INFO", "WARN", "ERROR"]
LEVELS: tuple[Level, ...] = ("ERROR", "WARN", "INFO")


def finding(level: Level, code: str, count: int, message: str, **more: Any) -> JsonObject:
    """One finding in the card's shape; `more` are details, such as up to 5 `examples` (places of rows)."""
    return {"level": level, "code": code, "count": count, "message": message, **more}
