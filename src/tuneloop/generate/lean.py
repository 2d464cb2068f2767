"""The layers of the Llama family for slots: the same numbers, to the bit, by fewer operations and calls.

With few rows at a time a small model spends as much time between its products as in them: transformers turns queries
and keys by fourteen operations a layer, this by four. Models are known by the code of their classes: most are copies.
Shapes: T tokens, E hidden size, H query heads, K key and K value heads, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from tuneloop.forward.hasten import is_llamas_norm
from tuneloop.forward.layout import Layout
from tuneloop.forward.norms import normed
from tuneloop.forward.objective import trunk_of
from tuneloop.generate.compiled import Kernels
from tuneloop.models.beside import beside, lay_beside
from tuneloop.models.packed import linear

if TYPE_CHECKING:
    from tuneloop.generate.slots import Slots

TRUNKS = (llama.LlamaModel, mistral.MistralModel, qwen2.Qwen2Model, qwen3.Qwen3Model)
ATTENTIONS = (llama.LlamaAttention, mistral.MistralAttention, qwen2.Qwen2Attention, qwen3.Qwen3Attention)
Turn = tuple[Tensor, Tensor]
"""Cosines and sines [T, H + K + K, D] by which a pass turns queries and keys, the sign of the turn in the sines; values
are left as they are, by ones and zeros."""


class Trunk:
    """A model's layers by the short way."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = [_Layer(layer) for layer in model.layers[: model.config.num_hidden_layers]]
        config, first = model.config, model.layers[0].self_attn  # in these classes, heads are alike in all layers
        self._asking, self._asked, self._size = config.num_attention_heads, config.num_key_value_heads, first.head_dim

    def run(self, ids_T: Tensor, positions_T: Tensor, slots: Slots, layout: Layout | None) -> Tensor:
        """Last hidden states [T, E] of tokens at these positions."""
        x, cos_TD, sin_TD = self._begin(ids_T, positions_T)
        half = self._size // 2
        signed_TD = torch.cat([-sin_TD[:, :half], sin_TD[:, half:]], -1)
        turn = self._spread(cos_TD, 1), self._spread(signed_TD, 0)
        for layer in self._layers:
            x = x + layer.attention(normed(layer.before, x), turn, slots, layout)
            x = x + layer.feed(normed(layer.after, x))
        return normed(self._model.norm, x)[0]

    def step(self, ids_B: Tensor, at: tuple[Tensor, Tensor], slots: Slots, kernels: Kernels) -> Tensor:
        """The same [B, E] for one token of each row, by what is compiled; `at`: slots and places, which are positions,
        [B]."""
        x, cos_BD, sin_BD = self._begin(ids_B, at[1])
        turn, more = (cos_BD.contiguous(), sin_BD.contiguous()), None
        for layer in self._layers:
            y = kernels.norm(x, more, layer.before.weight, layer.before.variance_epsilon)
            more = layer.attention.step(y, turn, at, slots, kernels)
            y = kernels.norm(x, more, layer.after.weight, layer.after.variance_epsilon)
            more = layer.feed.step(y, kernels) if isinstance(layer.feed, _Mlp) else layer.feed(y).contiguous()
        last = self._model.norm
        return kernels.norm(x, more, last.weight, last.variance_epsilon)[0]

    @property
    def heads(self) -> tuple[int, int, int]:
        """H, K and D, the same in all layers."""
        return self._asking, self._asked, self._size

    def _begin(self, ids_T: Tensor, positions_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings [1, T, E], cosines and sines [T, D]."""
        x = self._model.embed_tokens(ids_T[None])
        cos, sin = self._model.rotary_emb(x, positions_T[None])
        return x, cos[0], sin[0]

    def _spread(self, turn_TD: Tensor, rest: float) -> Tensor:
        values = turn_TD.new_full((), rest).expand(len(turn_TD), self._asked, turn_TD.shape[1])
        return torch.cat([turn_TD[:, None].expand(-1, self._asking + self._asked, -1), values], 1)


def trunk(core: PreTrainedModel) -> Trunk | None:
    """A model's layers by the short way; None where they are not all written like Llama's, or somebody watches them."""
    model: Any = trunk_of(core)
    if not _alike(model, *TRUNKS) or not _is_llamas_norm(model.norm):
        return None
    return Trunk(model) if all(map(_is_known, model.layers[: model.config.num_hidden_layers])) else None


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


def _is_known(layer: Any) -> bool:
    if not _alike(layer, llama.LlamaDecoderLayer):
        return False
    attention, before, after = layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm
    if not (_alike(attention, *ATTENTIONS) and _turns_by_halves(attention)):
        return False
    return _is_llamas_norm(before) and _is_llamas_norm(after)


class _Layer:
    def __init__(self, layer: Any) -> None:
        self.before, self.after = layer.input_layernorm, layer.post_attention_layernorm
        self.attention = _Attention(layer.self_attn)
        self.feed = _Mlp(layer.mlp) if _alike(layer.mlp, llama.LlamaMLP) else layer.mlp


class _Mlp:
    def __init__(self, mlp: Any) -> None:
        self._gate, self._up, self._down, self._act = mlp.gate_proj, mlp.up_proj, mlp.down_proj, mlp.act_fn
        self._both = beside([self._gate, self._up])

    def __call__(self, x: Tensor) -> Tensor:
        opened, held = self._opened(x)
        return linear(self._down, self._act(opened) * held)

    def step(self, x: Tensor, kernels: Kernels) -> Tensor:
        if type(self._act) is not type(ACT2FN["silu"]):
            return self(x)
        return linear(self._down, kernels.gated(*self._opened(x)))

    def _opened(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and what it lets through."""
        if self._both is None:
            return linear(self._gate, x), linear(self._up, x)
        opened, held = self._both(x).chunk(2, -1)
        return opened, held


class _Attention:
    def __init__(self, attention: Any) -> None:
        self._own = attention
        self._parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._whole = beside(self._parts)
        self._norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
        self.asking, self.asked = attention.config.num_attention_heads, attention.config.num_key_value_heads
        self.size, self._scaling, self._window = attention.head_dim, attention.scaling, None
        if not _alike(attention, llama.LlamaAttention):  # as their forward methods read it
            own = attention if hasattr(attention, "sliding_window") else attention.config
            self._window = getattr(own, "sliding_window", None)

    def __call__(self, x: Tensor, turn: Turn, slots: Slots, layout: Layout | None) -> Tensor:
        tokens, asking, asked, size = x.shape[1], self.asking, self.asked, self.size
        heads = self._heads(x)
        heads = (heads * turn[0]).add_(heads.roll(size // 2, -1).mul_(turn[1]))
        how = {"scaling": self._scaling, "sliding_window": self._window}
        if layout is None:
            kv_TW = heads.view(tokens, -1)[:, asking * size :]
            out = slots.exchange(self._own.layer_idx, heads[:, :asking], kv_TW, asked, **how)
        else:
            asks, keys, values = (part.transpose(0, 1)[None] for part in heads.split([asking, asked, asked], 1))
            out = slots.attend(self._own, asks, keys, values, layout, **how)
        return linear(self._own.o_proj, out.reshape(1, tokens, -1))

    def step(self, x: Tensor, turn: Turn, at: tuple[Tensor, Tensor], slots: Slots, kernels: Kernels) -> Tensor:
        heads = self._heads(x)
        queries, kv = heads[:, : self.asking], heads[:, self.asking :].flatten(1)
        held = slots.held(self._own.layer_idx, kv)
        out = kernels.attend(queries, kv, turn, held, at, self._window, self._scaling)
        return linear(self._own.o_proj, out)

    def _heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values [T, H + K + K, D], not yet turned."""
        parts = self._whole(x) if self._whole else torch.cat([linear(part, x) for part in self._parts], -1)
        heads = parts.view(x.shape[-2], -1, self.size)
        if self._norms is None:
            return heads
        asks, keys, values = heads.split([self.asking, self.asked, self.asked], 1)
        return torch.cat([self._norms[0](asks), self._norms[1](keys), values], 1)


def _alike(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module does just what one of the classes does, with no hook and no forward of its own."""
    if _is_watched(module) or "forward" in module.__dict__:
        return False
    return any(type(module) is kind or _code(type(module).forward) == _code(kind.forward) for kind in kinds)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_llamas_norm(norm: nn.Module) -> bool:
    return is_llamas_norm(type(norm)) and not _is_watched(norm)


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
