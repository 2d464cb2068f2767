"""From logits to the next token: greedy, or drawn with one random number a row.

A row's numbers come from its own seed and prompt, so its samples do not depend on the rows beside it.
Shapes: B rows, V vocabulary, C candidates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from tuneloop.core import digest
from tuneloop.generate.engine import Decoding

LIKELIEST = 1024
"""Candidates that are sorted at first where top_p needs an order; nearly always enough, and sorting all is slow."""

BLOCK = 256
"""Logits of which the largest is looked for at once."""


def source(seed: int, prompt: Sequence[int]) -> random.Random:
    """The random numbers of one row: uniform in [0, 1)."""
    return random.Random(digest.of_value([seed, list(prompt)]))


def greedy(logits_BV: Tensor) -> Tensor:
    """The likeliest tokens [B], the first of equal ones.

    CPUs compare five times as fast in float32 as in bfloat16, and find what is largest five times as fast as where.
    """
    logits_BV, size = logits_BV.float(), logits_BV.shape[1]
    if logits_BV.device.type != "cpu" or size < 2 * BLOCK:
        return logits_BV.argmax(-1)
    whole = size - size % BLOCK
    tops = logits_BV[:, :whole].unflatten(1, (-1, BLOCK)).amax(-1)
    if whole < size:
        tops = torch.cat([tops, logits_BV[:, whole:].amax(-1, keepdim=True)], 1)
    # the last block may begin in the one before, where nothing is as large if it was chosen
    begin_B1 = (tops.argmax(-1, keepdim=True) * BLOCK).clamp_(max=size - BLOCK)
    return begin_B1[:, 0] + logits_BV.gather(1, begin_B1 + torch.arange(BLOCK)).argmax(-1)


def sample(logits_BV: Tensor, uniform_B: Tensor, decoding: Decoding) -> Tensor:
    """Tokens [B] by inverting the distribution function at `uniform_B`; filters as in transformers, in its order.

    Temperature, then the `top_k` likeliest, then of those the fewest that together reach `top_p` of their sum.
    """
    scaled_BV = logits_BV.float() / decoding.temperature
    if decoding.top_k is None and decoding.top_p >= 1:
        return _invert(scaled_BV.softmax(-1), uniform_B)
    vocabulary = scaled_BV.shape[-1]
    count = min(decoding.top_k or LIKELIEST, vocabulary)
    values_BC, ids_BC = scaled_BV.topk(count)
    whole_B1 = (values_BC if decoding.top_k else scaled_BV).logsumexp(-1, keepdim=True)
    if not decoding.top_k and count < vocabulary:
        reached_B = (values_BC - whole_B1).exp().sum(-1)
        if bool((reached_B < decoding.top_p).any()):
            values_BC, ids_BC = scaled_BV.sort(dim=-1, descending=True)
    shares_BC = (values_BC - whole_B1).exp()
    before_BC = shares_BC.cumsum(-1) - shares_BC
    shares_BC = shares_BC.masked_fill(before_BC >= decoding.top_p, 0)  # the likeliest has nothing before it
    return ids_BC.gather(-1, _invert(shares_BC, uniform_B)[:, None])[:, 0]


def _invert(shares_BC: Tensor, uniform_B: Tensor) -> Tensor:
    """The first places [B] at which the running sum exceeds that part of the whole; never one with share 0."""
    sums_BC = shares_BC.cumsum(-1)
    aim_B1 = uniform_B[:, None].to(sums_BC) * sums_BC[:, -1:]
    places_B = torch.searchsorted(sums_BC, aim_B1, right=True)[:, 0]
    beyond = places_B == shares_BC.shape[-1]  # rounded up to the whole
    return torch.where(beyond, shares_BC.argmax(-1), places_B)
