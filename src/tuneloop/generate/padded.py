"""The general form of generation, by a model's own cache: rows of similar length begin together and leave one by one.

For architectures that slots.py cannot serve: recurrent layers, sliding windows and attention of their own.
Shapes: B rows, L tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

WASTE = 0.125  # share of padding that a batch may have; the price of fewer, larger batches
FREE = 128  # padded tokens that a batch may have in any case: reading the weights once more costs as much


def cache_name(core: PreTrainedModel) -> str:
    """The argument as which a model takes its cache: Mamba swallows past_key_values in silence, and then answers each
    token as if it were the first."""
    return "cache_params" if "cache_params" in inspect.signature(core.forward).parameters else "past_key_values"


class Padded:
    """The rows at work. Prompts are padded on the left, where the model's layers leave padding without effect."""

    def __init__(
        self, core: PreTrainedModel, beginning: DynamicCache | None, start: int, seats: int, longest: int
    ) -> None:
        """`beginning` is a cache of `start` virtual tokens that every row begins with; at most `seats` rows of at most
        `longest` tokens are at work."""
        self.core, self.beginning, self.start = core, beginning, start
        self.seats, self.longest = seats, longest
        self.last_only: dict[str, Any] = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(core.forward).parameters else {}
        )
        self.cache_name = cache_name(core)
        self.rows = 0

    def __len__(self) -> int:
        return self.rows

    def together(self, lengths: Sequence[int], most_tokens: int) -> int:
        """How many of the waiting prompts, longest first, may join now: none while others are at work."""
        if self.rows:
            return 0
        padding, longest, real = self._takes_padding(), lengths[0], 0
        for rows, length in enumerate(lengths, 1):
            real += length
            allowed = max(WASTE * rows * longest, FREE) if padding else 0
            if rows > 1 and (rows > self.seats or rows * longest > most_tokens or rows * longest - real > allowed):
                return rows - 1
        return len(lengths)

    def join(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """New rows; the logits [B, V] after each."""
        lengths = [len(prompt) for prompt in prompts]
        width, device = max(lengths), self.core.device
        ids_BL = torch.tensor(
            [[0] * (width - n) + list(prompt) for n, prompt in zip(lengths, prompts, strict=True)], device=device
        )
        first_B1 = torch.tensor([[width - n] for n in lengths], device=device)
        columns_L = torch.arange(width, device=device)
        self.rows = len(prompts)
        self.cache = DynamicCache(config=self.core.config) if self.beginning is None else copy.deepcopy(self.beginning)
        if self.beginning is not None:
            self._select([0] * self.rows)
        self.mask_BL = None
        if min(lengths) < width:
            own_BL = (columns_L >= first_B1).long()
            self.mask_BL = torch.cat([own_BL.new_ones(self.rows, self.start), own_BL], dim=1)
        return self._run(ids_BL, (columns_L - first_B1).clamp(min=0) + self.start)

    def step(self, ids: Sequence[int]) -> Tensor:
        """One more token of each row; the logits [B, V] after it."""
        if self.mask_BL is not None:
            self.mask_BL = torch.cat([self.mask_BL, self.mask_BL.new_ones(self.rows, 1)], dim=1)
        return self._run(torch.tensor(ids, device=self.core.device)[:, None], self.last_B1 + 1)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """All other rows leave; the rows that stay, in their order."""
        self.rows = len(rows)
        if rows:
            self._select(rows)
            at = torch.tensor(rows, device=self.core.device)
            self.last_B1 = self.last_B1[at]
            self.mask_BL = self.mask_BL[at] if self.mask_BL is not None else None
        return list(rows)

    def _run(self, ids_BL: Tensor, positions_BL: Tensor) -> Tensor:
        padded: dict[str, Any] = {} if self.mask_BL is None else {"attention_mask": self.mask_BL}
        cache = {self.cache_name: self.cache}
        self.last_B1 = positions_BL[:, -1:]
        out = self.core(ids_BL, position_ids=positions_BL, use_cache=True, **cache, **padded, **self.last_only)
        return out.logits[:, -1]

    def _takes_padding(self) -> bool:
        """Whether it is exact: all layers see all positions, no window, no recurrence."""
        return all(
            type(layer) is DynamicLayer
            or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > self.longest)
            for layer in DynamicCache(config=self.core.config).layers
        )

    def _select(self, rows: Sequence[int]) -> None:
        """Keeps (or repeats) rows of the cache: an index_select along the batch in every kind of layer."""
        self.cache.reorder_cache(torch.tensor(rows, device=self.core.device))  # type: ignore[arg-type]
