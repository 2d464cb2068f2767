"""Whether slots give a model's own numbers: found out by computing a few prompts both ways, once for each model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tuneloop.core.errors import ModelError
from tuneloop.forward import attention
from tuneloop.forward.attention import Unsupported
from tuneloop.generate.slots import Slots, attending
from tuneloop.track import console

HEAD, CHECKED = 96, 4
"""First tokens of how many prompts are computed both ways."""
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Difference of the logits, as a share of their spread, that rounding alone may cause; 0.1 in 16 bits."""
_KNOWN: WeakKeyDictionary[PreTrainedModel, dict[tuple[torch.dtype, bool], int | None]] = WeakKeyDictionary()


def bytes_a_token(
    core: PreTrainedModel, beginning: DynamicCache | None, start: int, prompts: Sequence[Sequence[int]]
) -> int | None:
    """Bytes of memory that a token takes in slots, or None where they are not exact for the model; found out once.

    A few prompts are joined without their last token, which comes by a step; the logits must be the model's own.
    """
    known, key = _KNOWN.setdefault(core, {}), (core.dtype, beginning is None)
    if key not in known:
        known[key] = _compared(core, beginning, start, prompts)
    return known[key]


def _compared(
    core: PreTrainedModel, beginning: DynamicCache | None, start: int, prompts: Sequence[Sequence[int]]
) -> int | None:
    sample = [list(prompt[:HEAD]) if len(prompt) > 1 else [*prompt, *prompt] for prompt in prompts[:CHECKED]]
    try:
        with attending(core):
            slots = Slots(core, beginning, start, len(sample))
            slots.join([prompt[:-1] for prompt in sample])
            ours_BV = slots.step([prompt[-1] for prompt in sample]).float()
    except (Unsupported, ModelError, TypeError, ValueError) as error:
        return _said(core, str(error))
    with attention.standard(core):
        own_BV = torch.stack([_own(core, beginning, start, prompt) for prompt in sample]).float()
    spread = (own_BV - own_BV.mean(-1, keepdim=True)).norm()
    gap = ((ours_BV - own_BV).norm() / spread).item()
    if gap <= ROUNDING.get(core.dtype, 0.1) and slots.bytes_a_token:
        return slots.bytes_a_token
    return _said(core, f"its logits differ by {gap:.2g} of their spread")


def _said(core: PreTrainedModel, why: str) -> None:
    console.decided("answers", f"{type(core).__name__}: rows of similar length are padded, without slots ({why})")


def _own(core: PreTrainedModel, beginning: DynamicCache | None, start: int, prompt: list[int]) -> Tensor:
    """The model's own logits [V] after a prompt."""
    ids = torch.tensor([prompt], device=core.device)
    if beginning is None:
        return core(ids, use_cache=False).logits[0, -1]
    positions = torch.arange(len(prompt), device=core.device)[None] + start
    cache = copy.deepcopy(beginning)
    return core(ids, position_ids=positions, past_key_values=cache, use_cache=True).logits[0, -1]
