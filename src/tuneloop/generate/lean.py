"""The layers of the Llama family for slots: the same numbers, to the bit, by fewer operations and calls.

With few rows at a time a small model spends as much time between its products as in them: transformers turns queries
and keys by fourteen operations a layer, this by four. Models are known by the code of their classes: most are copies.
Shapes: T tokens, E hidden size, H query heads, K key and K value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from tuneloop.forward.layout import Layout
from tuneloop.forward.norms import is_llamas, normed
from tuneloop.forward.objective import trunk_of
from tuneloop.models.beside import beside, lay_beside
from tuneloop.models.packed import linear

if TYPE_CHECKING:
    from tuneloop.generate.slots import Slots

TRUNKS = (llama.LlamaModel, mistral.MistralModel, qwen2.Qwen2Model, qwen3.Qwen3Model)
ATTENTIONS = (llama.LlamaAttention, mistral.MistralAttention, qwen2.Qwen2Attention, qwen3.Qwen3Attention)
Turn = tuple[Tensor, Tensor]
"""Cosines and sines [T, H + K + K, D] by which a pass turns queries and keys, the sign of the turn in the sines; values
are left as they are, by ones and zeros."""
Layer = Callable[[Tensor, Turn, "Slots", Layout | None], Tensor]
Trunk = Callable[[Tensor, Tensor, "Slots", Layout | None], Tensor]
"""(ids [T], positions [T], slots, layout) to the last hidden states [1, T, E]."""


def trunk(core: PreTrainedModel) -> Trunk | None:
    """A model's layers by the short way; None where they are not all written like Llama's, or somebody watches them."""
    model: Any = trunk_of(core)
    if not _alike(model, *TRUNKS) or not _is_llamas_norm(model.norm):
        return None
    layers = [_layer(layer) for layer in model.layers[: model.config.num_hidden_layers]]
    asking, asked = model.config.num_attention_heads, model.config.num_key_value_heads

    def spread(turn_TD: Tensor, rest: float) -> Tensor:
        values = turn_TD.new_full((), rest).expand(len(turn_TD), asked, turn_TD.shape[1])
        return torch.cat([turn_TD[:, None].expand(-1, asking + asked, -1), values], 1)

    def run(ids_T: Tensor, positions_T: Tensor, slots: Slots, layout: Layout | None) -> Tensor:
        x = model.embed_tokens(ids_T[None])
        cos, sin = model.rotary_emb(x, positions_T[None])
        half = sin.shape[-1] // 2
        turn = spread(cos[0], 1), spread(torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1), 0)
        for layer in layers:
            assert layer is not None
            x = layer(x, turn, slots, layout)
        return normed(model.norm, x)

    return None if None in layers else run


def side_by_side(core: PreTrainedModel) -> None:
    """Makes one product of what gets the same input, where `trunk` knows the layers and they are packed.

    Each layer called alone then costs as much as all of its product: for models that only answer, and by slots.
    """
    if trunk(core) is None:
        return
    model: Any = trunk_of(core)
    for layer in model.layers:
        lay_beside([layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj])
        if _alike(layer.mlp, llama.LlamaMLP):
            lay_beside([layer.mlp.gate_proj, layer.mlp.up_proj])


def _layer(layer: Any) -> Layer | None:
    if not _alike(layer, llama.LlamaDecoderLayer):
        return None
    attention, mlp, before, after = layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm
    if not (_alike(attention, *ATTENTIONS) and _turns_by_halves(attention)):
        return None
    if not (_is_llamas_norm(before) and _is_llamas_norm(after)):
        return None
    attend = _attention(attention)
    feed = _mlp(mlp) if _alike(mlp, llama.LlamaMLP) else mlp

    def run(x: Tensor, turn: Turn, slots: Slots, layout: Layout | None) -> Tensor:
        x = x + attend(normed(before, x), turn, slots, layout)
        return x + feed(normed(after, x))

    return run


def _mlp(mlp: Any) -> Callable[[Tensor], Tensor]:
    gate, up, down, act = mlp.gate_proj, mlp.up_proj, mlp.down_proj, mlp.act_fn
    both = beside([gate, up])

    def run(x: Tensor) -> Tensor:
        opened, held = both(x).chunk(2, -1) if both else (linear(gate, x), linear(up, x))
        return linear(down, act(opened) * held)

    return run


def _attention(attention: Any) -> Layer:
    q_proj, k_proj, v_proj, o_proj = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    whole = beside([q_proj, k_proj, v_proj])
    norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
    size, scaling, window = attention.head_dim, attention.scaling, None
    asking, asked = attention.config.num_attention_heads, attention.config.num_key_value_heads
    if not _alike(attention, llama.LlamaAttention):  # as their forward methods read it
        own = attention if hasattr(attention, "sliding_window") else attention.config
        window = getattr(own, "sliding_window", None)

    def run(x: Tensor, turn: Turn, slots: Slots, layout: Layout | None) -> Tensor:
        parts = whole(x) if whole else torch.cat([linear(q_proj, x), linear(k_proj, x), linear(v_proj, x)], -1)
        heads = parts.view(x.shape[1], -1, size)
        if norms is not None:
            asks, keys, values = heads.split([asking, asked, asked], 1)
            heads = torch.cat([norms[0](asks), norms[1](keys), values], 1)
        heads = (heads * turn[0]).add_(heads.roll(size // 2, -1).mul_(turn[1]))
        how = {"scaling": scaling, "sliding_window": window}
        if layout is None:
            kv_TW = heads.view(x.shape[1], -1)[:, asking * size :]
            out = slots.exchange(attention.layer_idx, heads[:, :asking], kv_TW, asked, **how)
        else:
            asks, keys, values = (part.transpose(0, 1)[None] for part in heads.split([asking, asked, asked], 1))
            out = slots.attend(attention, asks, keys, values, layout, **how)
        return linear(o_proj, out.reshape(1, x.shape[1], -1))

    return run


def _alike(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module does just what one of the classes does, with no hook and no forward of its own."""
    if _is_watched(module) or "forward" in module.__dict__:
        return False
    return any(type(module) is kind or _code(type(module).forward) == _code(kind.forward) for kind in kinds)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_llamas_norm(norm: nn.Module) -> bool:
    return is_llamas(type(norm)) and not _is_watched(norm)


def _turns_by_halves(attention: nn.Module) -> bool:
    around = _bare(type(attention).forward).__globals__
    names = ("apply_rotary_pos_emb", "rotate_half")
    return all(name in around and _code(around[name]) == _code(getattr(llama, name)) for name in names)


def _bare(function: Any) -> Any:
    """A function without its decorators."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _code(function: Any) -> Any:
    code = getattr(_bare(function), "__code__", function)
    return (code.co_code, code.co_names, code.co_consts) if hasattr(code, "co_code") else code
