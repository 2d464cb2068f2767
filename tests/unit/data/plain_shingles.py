"""What a shingle is, in plain Python: the oracle of the vectorised code."""

from __future__ import annotations


def plain(text: str) -> set[str]:
    """The definition, in plain Python."""
    sizes = [3 if ord(character) >= 0x2E80 else 5 for character in text]
    whole = {text[i : i + size] for i, size in enumerate(sizes) if i + size <= len(text)}
    return whole or ({text} if text else set())
