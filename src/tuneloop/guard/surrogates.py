"""Surrogates: invented values in place of personal data, the same for the same value within a document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from random import Random

from tuneloop.guard import digits
from tuneloop.guard.pii import Found, find, fold, mask, replaced
from tuneloop.guard.rules import RULES, Draw

_WIDEN = {ord(character): ord(character) + 0xFEE0 for character in "0123456789"}
_SEPARATORS = re.compile(r"[ ()\-\u2010-\u2013]")
_TRIES = 20


class Surrogates:
    """Surrogates for one document.

    Numbers get a wrong check digit or a range that is reserved for examples, so that no real person is hit. They depend
    on `seed` and the shape of what they replace, not on its value. Dates are shifted by 30 to 365 days, all dates of
    the document by the same number: whoever knows `seed` and `key` can shift them back, so keep the key secret.
    """

    def __init__(self, seed: str, key: str = "") -> None:
        digest = hashlib.blake2b(seed.encode(), key=hashlib.sha256(key.encode()).digest(), digest_size=8).digest()
        shift = int.from_bytes(digest, "big")
        days = (30 + shift // 2 % 336) * (1 if shift % 2 else -1)
        self._draw = Draw(Random(seed), days)
        self._made: dict[tuple[str, str], str] = {}

    def replace(self, text: str, found: Sequence[Found]) -> str:
        """The text with a surrogate in place of each find; `found` is in order, as `pii.find` gives it."""
        return self.checked(text, found, [self.instead(one) for one in found])

    @staticmethod
    def checked(text: str, found: Sequence[Found], instead: Sequence[str]) -> str:
        """The text with other words in place of the finds; masked where these words, beside what stands there, are a
        find again: a number in place of two that overlapped, or after a word that speaks of another kind."""
        new, places, shift = replaced(text, found, instead), list[tuple[int, int]](), 0
        for one, words in zip(found, instead, strict=True):
            places.append((one.start + shift, one.start + shift + len(words)))
            shift += len(words) - len(one.text)
        again = [one for one in find(new, strength="strong") if one.kind != "date"]
        return mask(new, [one for one in again if any(one.start < end and start < one.end for start, end in places)])

    def instead(self, one: Found) -> str:
        """The surrogate for one find."""
        value = fold(one.text)
        place = (one.kind, value.casefold())
        if place not in self._made:
            number = (one.kind, _SEPARATORS.sub("", value)) if digits.only(value) and "@" not in value else place
            known = self._made.get(number, "")
            same = known.isalnum() and len(known) == sum(map(str.isalnum, value))  # 138 0013 8000 after 13800138000
            made = digits.laid_out(known, value) if same else self._invent(one.kind, value)
            self._made[place] = made
            self._made.setdefault(number, _SEPARATORS.sub("", made) if number != place else made)
        made = self._made[place]
        return made.translate(_WIDEN) if value != one.text else made

    def _invent(self, kind: str, value: str) -> str:
        rule, taken = RULES.make(kind), set(self._made.values())
        harmless = f"[{kind.upper()}]"
        for _ in range(_TRIES):
            made = rule.surrogate(value, self._draw)
            if any(one.kind != "date" for one in find(made, strength="strong")):
                continue  # where finds of two kinds overlapped, the part of the other kind may have become a new one
            if made != value and made not in taken and _SEPARATORS.sub("", made) not in taken:
                return made
            harmless = made  # two people stay two people, as far as the reserved range has room
        return harmless
