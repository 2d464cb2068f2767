"""Guesses at an answer's next tokens: what followed when the same few tokens stood earlier in its prompt or in itself.

A pass over several tokens of one row costs a machine that waits for its memory little more than one token does. A guess
is checked by the pass that computes it, and kept as far as the model says the same, so answers stay what they are; only
their speed depends on how much they repeat: quotations, corrections, records, code, lists, loops of small models.
Known as prompt lookup, or LLMA (Yang et al. 2023, arXiv 2304.04487).
"""

from __future__ import annotations

from collections.abc import Sequence

LENGTHS = (3, 2)
"""Tokens that must be the same; what followed the longer match is taken."""
FIRST, MOST = 4, 15
"""Tokens of the first guess and of the longest."""


class Guesses:
    """Of one row; knows its tokens so far."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # the last place that followed each few tokens
        self._most = FIRST
        self._prompt = len(prompt)
        self._learn(prompt)

    def next(self, answer: Sequence[int], most: int) -> list[int]:
        """At most so many tokens after the answer so far, none where nothing like it stood before."""
        self._learn(answer[len(self._tokens) - self._prompt :])
        for length in LENGTHS:
            place = self._after.get(tuple(self._tokens[-length:]))
            if place is not None:
                return self._tokens[place : place + min(most, self._most)]
        return []

    def _learn(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            place = len(self._tokens)
            for length in LENGTHS:
                if place >= length:
                    self._after[tuple(self._tokens[-length:])] = place
            self._tokens.append(token)

    def checked(self, guessed: int, right: int) -> None:
        """How a guess came out: a right one lets the next be twice as long, a wrong one as long as it was right."""
        if guessed:
            self._most = min(MOST, 2 * self._most + 1) if right == guessed else max(1, right)
