"""The next-token distributions of a model on rows, kept so that another model can be compared with it later.

Kept are hidden states and the head, from which every distribution over the whole vocabulary follows exactly: a few
numbers a token instead of one a word, and the model itself may leave the memory.
Shapes: T tokens of a row, D hidden size, N positions of several rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuneloop.core.errors import ModelError
from tuneloop.forward.batch import Row, everywhere
from tuneloop.forward.divergence import Side, chunked_divergence
from tuneloop.forward.objective import Objective

POSITIONS = 4_096  # compared at a time


@dataclass(frozen=True)
class Distributions:
    """What one model says after each token of some rows."""

    ids: tuple[tuple[int, ...], ...]
    """The tokens of each row."""
    hidden: tuple[Tensor, ...]
    """Of each row the last hidden states [T, D], on the CPU."""
    head: nn.Module
    finish: Callable[[Tensor], Tensor] | None
    device: torch.device


def distributions(objective: Objective, rows: Sequence[Row], *, pad_id: int, budget: int) -> Distributions:
    """What the model says after every token of the rows; batches hold `budget` tokens."""
    kept: list[Tensor] = [torch.empty(0)] * len(rows)
    side: Side | None = None
    objective.eval()
    with torch.inference_mode():
        for picked in objective.micro_batches(rows, range(len(rows)), budget):
            batch = everywhere(objective.batch([rows[i] for i in picked], pad_id))
            side = objective.side(batch)
            for place, index in enumerate(picked):
                kept[index] = side.hidden_ND[batch.rows_N == place].cpu()
    assert side is not None, "no rows"
    ids = tuple(tuple(map(int, row.ids)) for row in rows)
    device = next(objective.parameters()).device
    # the head alone may change with the model, when an adapter's scale does
    return Distributions(ids, tuple(kept), copy.deepcopy(side.head).requires_grad_(False), side.finish, device)


def divergences(new: Distributions, old: Distributions) -> list[tuple[float, int]]:
    """(Σ KL(new ‖ old) in nats, positions) of each row, over the whole vocabulary.

    Raises ModelError where the two did not read the same tokens.
    """
    if new.ids != old.ids:
        raise ModelError("KL needs two models that read the same tokens: these have other tokenizers or chat templates")
    out: list[tuple[float, int]] = []
    with torch.inference_mode():
        for start, stop in _blocks([len(row) for row in new.ids]):
            sides = [Side(torch.cat(one.hidden[start:stop]).to(new.device), one.head, one.finish) for one in (old, new)]
            ones_N = torch.ones(len(sides[0].hidden_ND), device=new.device)
            _, each_N = chunked_divergence(sides[0], sides[1], ones_N, direction="reverse")
            for row in each_N.double().split([len(row) for row in new.ids[start:stop]]):
                out.append((max(0.0, float(row.sum())), len(row)))
    return out


def _blocks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(start, stop) of rows that together have at most POSITIONS positions, or one row."""
    blocks: list[tuple[int, int]] = []
    start = total = 0
    for index, length in enumerate(lengths):
        if total and total + length > POSITIONS:
            blocks.append((start, index))
            start, total = index, 0
        total += length
    return [*blocks, (start, len(lengths))]
