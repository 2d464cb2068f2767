"""Text of rows for the card: short, and without the personal data that the rules find."""

from __future__ import annotations

from tuneloop.guard.pii import find, mask


def quoted(text: str, most: int) -> str:
    """At most so many characters; a card is passed around, so strong finds are masked."""
    masked = mask(text, find(text, strength="strong"))
    return masked if len(masked) <= most else f"{masked[:most].rstrip()} …"
