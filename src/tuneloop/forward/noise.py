"""NEFTune: uniform noise on the embeddings of real tokens (Jain et al. 2023, arXiv 2310.05914, algorithm 1).

Shapes as in batch.py: T tokens of all rows together, R rows, L longest row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tuneloop.forward.batch import Batch, real_positions


@contextmanager
def noisy_embeddings(model: PreTrainedModel, batch: Batch, alpha: float) -> Iterator[None]:
    """Within it, the model's token embeddings of `batch` get noise of alpha / √(L·D) · uniform(-1, 1).

    L is the length of the token's own row, packed or padded. The noise is drawn for real tokens only, in the order of
    the rows, so the same random state gives packed and padded rows the same noise.
    """
    real_T, rows_T = real_positions(batch)
    lengths_T = rows_T.bincount()[rows_T]

    def add(module: torch.nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        size = embedded.shape[-1]
        drawn_TD = torch.rand(len(lengths_T), size, device=embedded.device) * 2 - 1
        drawn_TD *= alpha / (lengths_T[:, None] * size).sqrt()
        noise = torch.zeros_like(embedded).view(-1, size)
        noise[real_T] = drawn_TD.to(embedded.dtype)
        return embedded + noise.view_as(embedded)

    hook = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
