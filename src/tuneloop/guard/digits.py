"""Arithmetic and shapes of numbers: check digits, and new values in the layout of old ones."""

from __future__ import annotations

import string
from random import Random


def only(text: str) -> str:
    """The digits of a text, without what separates them."""
    return "".join(character for character in text if character in string.digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def drawn(count: int, random: Random) -> str:
    """So many random digits."""
    return "".join(random.choice(string.digits) for _ in range(count))


def redraw(text: str, random: Random) -> str:
    """Every ASCII digit and letter replaced by one of its own sort; all else stays."""
    sorts = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
    return "".join(next((random.choice(sort) for sort in sorts if character in sort), character) for character in text)


def pour(digits: str, layout: str) -> str:
    """`digits` in the places of the digits of `layout`, which has just as many."""
    assert len(digits) == len(only(layout)), (digits, layout)
    following = iter(digits)
    return "".join(next(following) if character in string.digits else character for character in layout)


def laid_out(characters: str, layout: str) -> str:
    """Letters and digits in the places of those of `layout`, which has just as many."""
    following = iter(characters)
    return "".join(next(following) if character.isalnum() else character for character in layout)


def shape(text: str, limit: int = 40) -> str:
    """What a value looks like without saying it: 0 for digits, a and A for letters, 某 for other letters."""
    shown = "".join(
        "0"
        if character.isdigit()
        else ("A" if character.isupper() else "a" if character.isascii() else "某")
        if character.isalpha()
        else character
        for character in text[:limit]
    )
    return shown + "…" if len(text) > limit else shown
