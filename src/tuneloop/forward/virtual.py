"""Virtual tokens before every row: trained embeddings (prompt tuning) or trained keys and values (prefix tuning).

The adapters are peft's own; here they enter our packed and padded batches and the cache that a generation begins with.
Positions are peft's: row tokens follow the V virtual ones, so the first has position V.
Shapes: V virtual tokens, R rows, T tokens of all rows together, N scored positions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from tuneloop.core.errors import DataError, ModelError
from tuneloop.forward.attention import standard
from tuneloop.forward.batch import Batch, Row
from tuneloop.forward.layout import Layout
from tuneloop.forward.tree import Tree

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values [1, heads, V, head size] of each layer."""

ATTENTION_ONLY = "a prefix needs layers of attention alone; this model has others: use method prompt"


def count(model: Any) -> int:
    """How many virtual tokens stand before each row; 0 for a model without such an adapter, or with it disabled."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or model._adapters_disabled:
        return 0
    return config.num_virtual_tokens


def in_layers(model: Any) -> int:
    """How many of them run through the layers as tokens do: a prompt's; those of a prefix are keys and values alone."""
    return 0 if not count(model) or _is_prefix(model) else count(model)


def _is_prefix(model: Any) -> bool:
    return model.active_peft_config.peft_type == "PREFIX_TUNING"


def check_room(model: Any, core: PreTrainedModel, rows: Sequence[Row]) -> None:
    """Raises DataError where the longest row and the virtual tokens before it do not fit into the model's context."""
    context = getattr(core.config.get_text_config(), "max_position_embeddings", None)
    virtual, longest = count(model), max(len(row.ids) for row in rows)
    if virtual and context is not None and longest + virtual > context:
        raise DataError(
            f"the longest row has {longest} tokens, with {virtual} virtual ones before it more than the context "
            f"of {context}: set tune.max_length to at most {context - virtual}, or use fewer virtual tokens"
        )


def inputs(model: Any, core: PreTrainedModel, batch: Batch) -> tuple[dict[str, Any], Tensor]:
    """What the model below the head is called with, and where the scored positions [N] are in what it returns."""
    virtual = count(model)
    place: dict[str, Any] = {"layout": batch.layout} if batch.layout is not None else {"attention_mask": batch.mask}
    if not virtual:
        return {"input_ids": batch.ids, "position_ids": batch.positions, **place}, batch.keep_N
    if _is_prefix(model):
        return _with_prefix(model, core, batch, virtual, place), batch.keep_N
    prompt_VD = model.get_prompt(batch_size=1)[0]
    own = core.get_input_embeddings()(batch.ids)
    made = _packed_prompt if batch.layout is not None else _padded_prompt
    return made(prompt_VD.to(own.dtype), own, batch), batch.keep_N + virtual * (batch.rows_N + 1)


def own_tokens(model: Any, batch: Batch) -> Tensor | None:
    """Which positions that the layers run over hold tokens of rows, flat; None: all. Others are padding and prompts."""
    virtual = 0 if not count(model) or _is_prefix(model) else count(model)  # a prefix is keys and values only
    if batch.mask is not None:
        return torch.nn.functional.pad(batch.mask, (virtual, 0)).reshape(-1).bool()
    if not virtual:
        return None
    assert batch.layout is not None
    rows = [np.arange(virtual + length) >= virtual for length in batch.layout.lengths]
    return torch.from_numpy(np.concatenate(rows)).to(batch.ids.device)


def _packed_prompt(prompt_VD: Tensor, own: Tensor, batch: Batch) -> dict[str, Any]:
    assert batch.layout is not None
    virtual, device = len(prompt_VD), own.device
    lengths = np.array(batch.layout.lengths)
    ends = np.cumsum(lengths)
    gather = [
        np.concatenate([np.arange(virtual), virtual + np.arange(end - length, end)])
        for length, end in zip(lengths, ends, strict=True)
    ]
    positions = np.concatenate([np.arange(virtual + length) for length in lengths])
    both = torch.cat([prompt_VD, own[0]])
    return {
        "inputs_embeds": both.index_select(0, torch.from_numpy(np.concatenate(gather)).to(device))[None],
        "position_ids": torch.from_numpy(positions)[None].to(device),
        "layout": Layout.of(Tree.flat([virtual + length for length in lengths.tolist()])).to(device),
    }


def _padded_prompt(prompt_VD: Tensor, own: Tensor, batch: Batch) -> dict[str, Any]:
    rows, width, _ = own.shape
    virtual = len(prompt_VD)
    return {
        "inputs_embeds": torch.cat([prompt_VD.expand(rows, -1, -1), own], dim=1),
        "position_ids": torch.arange(virtual + width, device=own.device).expand(rows, -1),
        "attention_mask": _widened(batch, virtual),
    }


def _with_prefix(
    model: Any, core: PreTrainedModel, batch: Batch, virtual: int, place: dict[str, Any]
) -> dict[str, Any]:
    given = {"input_ids": batch.ids, "position_ids": batch.positions + virtual, **place}
    if batch.layout is not None:
        return {**given, "prefix": layers_of(model.get_prompt(batch_size=1))}
    if core.training and core.is_activation_checkpointing:  # transformers then drops the cache, and with it the prefix
        raise ModelError(
            f"tune.memory.gradient_checkpointing: {type(core).__name__} takes a prefix only through its cache, which "
            f"checkpointed layers do not read. Turn it off, or use method prompt."
        )
    return {
        **given,
        "past_key_values": model.get_prompt(batch_size=len(batch.ids)),
        "attention_mask": _widened(batch, virtual),
    }


def _widened(batch: Batch, virtual: int) -> Tensor:
    assert batch.mask is not None
    return torch.cat([batch.mask.new_ones(len(batch.mask), virtual), batch.mask], dim=1)


def beginning(model: Any, core: PreTrainedModel, cache_name: str) -> DynamicCache | None:
    """The cache of one row after its virtual tokens, for generation; None where there are none.

    `cache_name` is the argument that the model takes its cache as.
    """
    if not count(model):
        return None
    prompt = model.get_prompt(batch_size=1)
    if _is_prefix(model):
        return prompt
    cache = DynamicCache(config=core.config)
    embeds = prompt.to(core.dtype)
    core(inputs_embeds=embeds, **{cache_name: cache}, use_cache=True)
    return cache


def layers_of(cache: DynamicCache) -> KeysValues:
    """Keys and values of a cache's layers. Raises ModelError for layers that hold something else (recurrent ones)."""
    out: KeysValues = []
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise ModelError(ATTENTION_ONLY)
        out.append((keys, values))
    return out


@torch.no_grad()
def keys_and_values(core: PreTrainedModel, ids: Sequence[int]) -> KeysValues:
    """What the model's layers compute of a text that stands alone at its beginning. Raises ModelError as layers_of."""
    own = DynamicCache(config=core.config).layers
    if core._is_stateful or not all(isinstance(layer, DynamicLayer) for layer in own):  # some hold both in one layer
        raise ModelError(ATTENTION_ONLY)
    cache = DynamicCache()  # not `own`: sliding windows would cut a text that is longer than they are
    with standard(core):
        core(torch.tensor([list(ids)], device=core.device), past_key_values=cache, use_cache=True)
    return layers_of(cache)
