"""The decode loop: rows come and go between steps, and each gets its next token. Knows nothing of texts."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tuneloop.generate.engine import Decoding
from tuneloop.generate.sampling import greedy, sample, source


@dataclass(eq=False, slots=True)
class Row:
    """A prompt and what was generated after it so far; at most `room` tokens."""

    place: int
    """Its number among all prompts of the caller."""
    prompt: Sequence[int]
    room: int
    seed: int = 0
    """Of its samples; greedy ones need none."""
    new: list[int] = field(default_factory=list[int])


class Form(Protocol):
    """How rows are computed: slots.Slots or padded.Padded. Rows are numbered from 0, in their order."""

    def together(self, lengths: Sequence[int], most_tokens: int) -> int:
        """How many of the waiting prompts of these lengths, in this order, may join now; at least one where it is
        empty. `most_tokens`: of one join."""
        ...

    def join(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """New rows, numbered after those at work; the logits [new rows, V] after each prompt."""
        ...

    def step(self, ids: Sequence[int]) -> Tensor:
        """One more token of each row at work; the logits [B, V] after it."""
        ...

    def keep(self, rows: Sequence[int]) -> list[int]:
        """All other rows leave; the numbers that the kept ones had, in their new order."""
        ...


class DecodeLoop:
    """Rows at work. `join` and `step` return those that are finished with it, by a stop token or at their limit."""

    def __init__(self, form: Form, decoding: Decoding, stop_ids: Collection[int]) -> None:
        self._form, self._decoding, self._stop_ids = form, decoding, frozenset(stop_ids)
        self.rows: list[Row] = []
        self._draws: dict[Row, random.Random] = {}

    def join(self, rows: Sequence[Row]) -> list[Row]:
        """Computes prompts and the first token after each."""
        logits = self._form.join([row.prompt for row in rows])
        self.rows += rows
        if self._decoding.temperature:
            self._draws |= {row: source(row.seed, row.prompt) for row in rows}
        return self._advance(rows, logits)

    def step(self) -> list[Row]:
        """Computes the next token of every row."""
        return self._advance(self.rows, self._form.step([row.new[-1] for row in self.rows]))

    def _advance(self, rows: Sequence[Row], logits_BV: Tensor) -> list[Row]:
        finished: list[Row] = []
        for row, token in zip(rows, self._next(rows, logits_BV), strict=True):
            row.new.append(token)
            if token in self._stop_ids or len(row.new) >= row.room:
                finished.append(row)
        if finished:
            gone = set(finished)
            order = self._form.keep([number for number, row in enumerate(self.rows) if row not in gone])
            self.rows = [self.rows[number] for number in order]
        return finished

    def _next(self, rows: Sequence[Row], logits_BV: Tensor) -> list[int]:
        if self._decoding.temperature == 0:
            return greedy(logits_BV).tolist()
        numbers = [self._draws[row].random() for row in rows]
        return sample(logits_BV, torch.tensor(numbers, device=logits_BV.device), self._decoding).tolist()
