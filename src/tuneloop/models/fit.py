"""Will it fit, and how long will it take? Counted on the meta device before any weight is loaded.

Estimates, not promises: the activations follow the tensors that PyTorch's autograd saves in a pre-norm decoder layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from tuneloop.models.quantize import BITS, Quantization, linear_parameters

GIB = 1 << 30
UNFUSED_GELU = 10
"""Arrays of the inner width that GPT-2's feed-forward keeps: its GELU is written out in single operations."""
SCAN = 30
"""Arrays of the inner width that a state-space layer keeps: measured on Mamba-2 without its CUDA kernels."""
EFFICIENCY = 0.35
"""Share of the measured matrix rate that a training step reaches over all (attention, norms, optimizer are slower)."""


@dataclass(frozen=True)
class Fit:
    """Memory of a training step in bytes, and its work. `available` is free memory of the device now."""

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    available: int
    flops_per_token: int
    teachers: int = 0
    """Weights of models that are asked and not trained."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.teachers

    @property
    def fits(self) -> bool:
        return self.total <= self.available

    def seconds(self, tokens: int, flops_per_second: float) -> float:
        """Rough time for `tokens` tokens, from the machine's measured matrix rate (precision.matmul_rate)."""
        return tokens * self.flops_per_token / (EFFICIENCY * flops_per_second)

    def lines(self) -> list[str]:
        """For the console."""
        out = [
            f"parameters  {self.parameters:,}, {self.trainable:,} trained ({self.trainable / self.parameters:.2%})",
            f"memory      {_size(self.total)} of {_size(self.available)} free: weights {_size(self.weights)}, "
            f"gradients {_size(self.gradients)}, optimizer {_size(self.optimizer)}, "
            f"activations ~{_size(self.activations)}" + (f", teachers {_size(self.teachers)}" if self.teachers else ""),
        ]
        if not self.fits:
            out.append("this does not fit: try method lora, a smaller tune.max_length, checkpointing or a smaller base")
        return out


def estimate(
    config: PretrainedConfig,
    *,
    tokens_per_step: int,
    dtype: torch.dtype,
    trainable: int | None = None,
    state_bytes: float = 8,
    beside: bool = False,
    checkpointing: bool = False,
    supervised_share: float = 1.0,
    loss_chunk: int = 1024,
    device: str = "cpu",
    teachers: int = 0,
    quantization: Quantization | None = None,
) -> Fit:
    """The Fit of a training step over `tokens_per_step` tokens (those of one forward and backward, not accumulated).

    `trainable`: number of trained parameters, None for all; `beside`: they are added to the base, as LoRA's are;
    `teachers`: bytes of models beside it, whose work is not counted; `quantization`: how the base's linear layers are
    held. Mixed precision after Micikevicius et al. 2018
    (arXiv 1710.03740): trained parameters and their gradients in fp32, the optimizer's state (`state_bytes` a
    parameter, 8 for AdamW's two moments), a copy of the trained ones in `dtype` for computing, frozen ones in `dtype`.
    Work after Kaplan et al. 2020 (arXiv 2001.08361): 2 operations per weight and token forward, 2 backward for the
    activations, 2 for the gradients of trained weights only.
    """
    own, active, linear = count_parameters(config)
    trained = own if trainable is None else trainable
    total = own + trained if beside else own
    width = dtype.itemsize
    copy = trained * width if width < 4 else 0
    saved = int(linear * (width - BITS[quantization] / 8)) if quantization else 0
    supervised = int(tokens_per_step * supervised_share)
    gradient_work = 6 * trained if beside else 2 * active * trained // own
    return Fit(
        parameters=total,
        trainable=trained,
        weights=(total - trained) * width + trained * 4 + copy - saved,
        gradients=trained * 4,
        optimizer=round(trained * state_bytes),
        activations=activation_bytes(config, tokens_per_step, width, checkpointing)
        + loss_bytes(config, supervised, loss_chunk),
        available=available_memory(device),
        flops_per_token=4 * active + gradient_work,
        teachers=teachers,
    )


def count_parameters(config: PretrainedConfig) -> tuple[int, int, int]:
    """(all, those that one token meets, those of linear layers but the head).

    Experts left out by the router and the embedding do no work.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    text = config.get_text_config()
    experts = _first(text, "num_local_experts", "n_routed_experts", "num_experts")
    used = _first(text, "num_experts_per_tok", "moe_top_k")
    routed = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if ".experts." in name and "shared" not in name
    )
    idle = routed - routed * used // experts if experts and used else 0
    embedding = model.get_input_embeddings().weight
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is embedding
    return total, total - idle - (0 if tied else embedding.numel()), linear_parameters(model, output)


def activation_bytes(config: PretrainedConfig, tokens: int, width: int, checkpointing: bool) -> int:
    """What the layers keep for the backward pass of `tokens` tokens, `width` bytes a value.

    Elements a token and layer, after Korthikanti et al. 2022 (arXiv 2205.05198, section 4) without the quadratic
    attention matrix, which fused attention recomputes, and for a gated feed-forward: two normalisations (input in fp32,
    result), queries, keys, values before and after the rotation, the attention's result, and four arrays of the
    feed-forward's inner width. With checkpointing only each layer's input and one whole layer are kept.
    """
    text = config.get_text_config()
    hidden, used = text.hidden_size, _first(text, "num_experts_per_tok", "moe_top_k")
    arrays = UNFUSED_GELU if getattr(text, "activation_function", None) == "gelu_new" else 4
    sent = 2 * used * hidden  # each chosen expert gets a copy of the token and gives one back
    layer = 2 * hidden * (4 + width) + width * (_mixer_elements(text) + hidden + arrays * _inner(text) + sent)
    layers = text.num_hidden_layers
    kept = layers * hidden * width + layer if checkpointing else layers * layer
    return tokens * kept


def _mixer_elements(text: Any) -> int:
    """Elements a token that attention keeps; for models without, those of a state-space layer, roughly."""
    hidden, heads = text.hidden_size, _first(text, "num_attention_heads")
    if not heads:
        return SCAN * (_first(text, "expand") or 2) * hidden
    head = _first(text, "head_dim") or hidden // heads
    kv = _first(text, "num_key_value_heads") or heads
    value = head
    if _first(text, "kv_lora_rank"):  # DeepSeek's latent attention: keys and values are made for every head
        head, kv, value = text.qk_nope_head_dim + text.qk_rope_head_dim, heads, text.v_head_dim
    return 2 * head * (heads + kv) + 2 * value * kv + value * heads


def _inner(text: Any) -> int:
    """Width of what a token meets in the feed-forward: the chosen experts and the shared ones together."""
    used = _first(text, "num_experts_per_tok", "moe_top_k")
    dense = _first(text, "intermediate_size", "n_inner", "ffn_hidden_size") or 4 * text.hidden_size
    if not used:
        return dense
    one = _first(text, "moe_intermediate_size") or dense
    shared = _first(text, "shared_expert_intermediate_size", "shared_intermediate_size")
    return one * (used + _first(text, "n_shared_experts")) + shared


def loss_bytes(config: PretrainedConfig, positions: int, chunk: int) -> int:
    """Logits of one chunk of supervised positions in fp32, their gradient and their softmax."""
    return 3 * 4 * min(positions, chunk) * config.get_text_config().vocab_size


def available_memory(device: str = "cpu") -> int:
    """Free bytes: of the GPU, or of the machine within the limit of the container."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)


def _first(config: Any, *names: str) -> int:
    return next((int(getattr(config, name)) for name in names if getattr(config, name, None)), 0)


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.0f} MiB"
