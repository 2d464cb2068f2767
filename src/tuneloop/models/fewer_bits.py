"""Linear layers of a loaded model held in 8 or 4 bits, for inference on a CPU by torch's own kernels.

Activations stay in bf16: rounded to 8 bits too they are no faster here and eight times as far from full precision
(docs/serve.md). Knows nothing of who asks the model, nor of training (quantize.py holds bases for that).
Shapes: T tokens of a pass, I inputs, O outputs, G groups of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError
from tuneloop.models.packed import in_few_sizes
from tuneloop.models.targets import routers

if TYPE_CHECKING:
    from collections.abc import Iterator

Scheme = Literal["int8", "int4"]
FEW = 64
"""Rows up to which torch's kernel for 8-bit weights is faster than a bf16 product with the codes turned into bf16.
Measured on an AVX512-BF16 CPU, 192x576 to 1536x576: they meet between 32 and 64, and the
short prompts by which the live engine checks itself then are rounded alike (with 40 SmolLM2 failed that check)."""
GROUP, LEVELS = 32, 15
"""Weights with a scale and an offset of their own in 4 bits, and the largest code."""
SHRINK = tuple(1 - 0.04 * step for step in range(10))
"""Shares of a group's range that are tried: cutting its ends off often leaves the smaller error."""
INPUTS = 32
"""What a layer's inputs must be a multiple of: torch's 8-bit kernel reads beyond the end of other rows."""


class Int8Rows(nn.Module):
    """y = (x · codesᵀ) · scale + b, a scale for each output. A weight is off by half its row's scale at most.

    Few rows and many take two kernels of one function: codes are whole numbers up to 127, which bf16 holds exactly.
    """

    weight: Tensor
    """Codes [O, I]."""
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        largest_O = weight_OI.float().abs().amax(1)
        # up by one step of bf16, so that rounding the scale to it leaves every code within ±127
        scale_O = torch.where(largest_O > 0, largest_O / 127 * (1 + 2**-8), 1).to(torch.bfloat16)
        codes_OI = (weight_OI.float() / scale_O.float()[:, None]).round().to(torch.int8)
        self.register_buffer("weight", codes_OI.contiguous())
        self.register_buffer("scale", scale_O)
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] → [..., O], in bf16."""
        x_TI = x.reshape(-1, self.in_features)
        if len(x_TI) <= FEW:
            out_TO = torch.ops.aten._weight_int8pack_mm(x_TI, self.weight, self.scale)
        else:
            weight_OI = self.weight.to(x.dtype)
            out_TO = in_few_sizes(lambda rows: F.linear(rows, weight_OI), x_TI).mul_(self.scale)
        return _finished(out_TO, self.bias, x)

    @classmethod
    def joined(cls, layers: Sequence[Int8Rows]) -> Int8Rows:
        """As Joinable's; each row keeps its codes and its scale."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.out_features, made.in_features = sum(layer.out_features for layer in layers), layers[0].in_features
        for name in ("weight", "scale", "bias"):
            parts = [getattr(layer, name) for layer in layers]
            made.register_buffer(name, None if parts[0] is None else torch.cat(parts))
        return made

    def dense(self) -> Tensor:
        """The weights [O, I] that it stands for, in float32."""
        return self.weight.float() * self.scale.float()[:, None]


class Int4Groups(nn.Module):
    """y = x · Wᵀ + b for W = (code - 8) · scale + offset, with scale and offset for each GROUP weights of a row."""

    packed: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        codes_OI, scales_OG2 = _in_four_bits(weight_OI.float().unflatten(1, (-1, GROUP)))
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1))
        self.register_buffer("scales", scales_OG2.transpose(0, 1).contiguous())
        self.register_buffer("bias", None if bias_O is None else bias_O.detach().to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] → [..., O], in bf16."""
        x_TI = x.reshape(-1, self.in_features)
        out_TO = torch.ops.aten._weight_int4pack_mm_for_cpu(x_TI, self.packed, GROUP, self.scales)
        return _finished(out_TO, self.bias, x)

    def dense(self) -> Tensor:
        """The weights [O, I] that it stands for, in float32: how the packed codes lie is the kernel's own affair."""
        ones_II = torch.eye(self.in_features, dtype=torch.bfloat16)
        found_IO = torch.ops.aten._weight_int4pack_mm_for_cpu(ones_II, self.packed, GROUP, self.scales)
        return found_IO.float().t()


class TiedEmbedding(nn.Module):
    """Looks words up in the codes of the head that they are tied to, so that the vocabulary is held once."""

    def __init__(self, head: Int8Rows) -> None:
        super().__init__()
        self._codes = (head.weight, head.scale)  # no buffers: they are the head's

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings [..., I] in bf16."""
        codes, scale = self._codes
        return codes[ids].to(scale.dtype) * scale[ids][..., None]


def _finished(out_TO: Tensor, bias_O: Tensor | None, x: Tensor) -> Tensor:
    out_TO = out_TO if bias_O is None else out_TO.add_(bias_O)
    return out_TO.view(*x.shape[:-1], -1)


def _in_four_bits(groups_OGK: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [O, I] and (scale, offset) [O, G, 2] in bf16, each group over that share of its range that errs least."""
    low, high = groups_OGK.amin(-1, keepdim=True), groups_OGK.amax(-1, keepdim=True)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    errors: list[Tensor] = []
    for share in SHRINK:
        scale = ((high - low) * (share / LEVELS)).clamp(min=2**-120).bfloat16().float()
        offset = (low * share + 8 * scale).bfloat16().float()
        codes = ((groups_OGK - offset) / scale + 8).round().clamp(0, LEVELS)
        found.append((codes, scale, offset))
        errors.append(((codes - 8) * scale + offset - groups_OGK).square().sum(-1, keepdim=True))
    best_OG1 = torch.stack(errors).argmin(0)
    codes, scale, offset = found[0]
    for place, other in enumerate(found[1:], 1):
        better = best_OG1 == place
        codes, scale, offset = (torch.where(better, *pair) for pair in zip(other, (codes, scale, offset), strict=True))
    return codes.flatten(1).to(torch.int32), torch.cat([scale, offset], -1).bfloat16()


@dataclass(frozen=True)
class Fewer:
    """A model whose layers were exchanged. The full ones are kept until this is dropped, to be compared with."""

    swaps: tuple[tuple[nn.Module, str, nn.Module, nn.Module], ...]
    """(parent, name in it, full layer, layer in fewer bits)."""
    said: str
    """What was done, in words."""

    @contextmanager
    def full(self) -> Iterator[None]:
        """The model is as it was inside the block."""
        self._put(2)
        try:
            yield
        finally:
            self._put(3)

    def _put(self, which: int) -> None:
        for swap in self.swaps:
            setattr(swap[0], swap[1], swap[which])


def hold(model: PreTrainedModel, scheme: Scheme) -> Fewer:
    """Exchanges the linear layers of a model in bf16 for such in 8 or 4 bits, which have no gradient.

    The head takes 8 bits in either scheme, with the embedding that is tied to it. Full precision keep norms, routers,
    stacked experts, and layers of a shape that the kernels do not take. Raises ModelError where the machine or the
    model cannot do it, saying what to do instead.
    """
    _refuse(model)
    head, spared = model.get_output_embeddings(), {router.module for router in routers(model).values()}
    swaps: list[tuple[nn.Module, str, nn.Module, nn.Module]] = []
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) in (nn.Linear, Conv1D) and not spared & {parent, layer}:
                kind = Int8Rows if layer is head else {"int8": Int8Rows, "int4": Int4Groups}[scheme]
                if layer not in made and _takes(kind, layer):
                    made[layer] = _packed(kind, layer)
                if layer in made:
                    swaps.append((parent, name, layer, made[layer]))
    if not swaps:
        raise ModelError(
            f"no layer of {type(model).__name__} can be held in {scheme}: it has no plain linear layers with a "
            f"multiple of {INPUTS} inputs. Set serve.quantize.scheme: none"
        )
    swaps += _tied(model, made)
    before = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    fewer = Fewer(tuple(swaps), "")
    fewer._put(3)
    return Fewer(fewer.swaps, f"{len(made)} layers in {scheme}: {before / 1e6:,.0f} → {_bytes(model) / 1e6:,.0f} MB")


def _refuse(model: PreTrainedModel) -> None:
    if model.device.type != "cpu":
        raise ModelError(
            "serve.quantize.scheme is for CPUs: on a GPU bf16 is served by the batch faster. "
            "Set serve.quantize.scheme: none"
        )
    flags = torch.cpu.get_capabilities()
    if not (flags.get("avx512_bf16") or flags.get("amx_bf16")):
        raise ModelError(
            f"this CPU ({flags.get('cpu_name') or flags.get('architecture')}) has neither AVX512-BF16 nor AMX, without "
            "which layers in fewer bits are slower than fp32. Set serve.quantize.scheme: none, or serve a GGUF file"
        )
    if model.dtype != torch.bfloat16:
        raise ModelError(
            f"serve.quantize.scheme computes in bf16, but the model is in {str(model.dtype).removeprefix('torch.')}. "
            "Set serve.quantize.scheme: none, or model.dtype: auto"
        )


def _takes(kind: type[nn.Module], layer: Any) -> bool:
    outputs, inputs = _weight(layer).shape
    return inputs % INPUTS == 0 and (kind is Int8Rows or outputs % 16 == 0)


def _weight(layer: Any) -> Tensor:
    """[O, I]; GPT-2 stores it transposed."""
    return layer.weight.detach().t() if isinstance(layer, Conv1D) else layer.weight.detach()


def _packed(kind: Callable[[Tensor, Tensor | None], nn.Module], layer: Any) -> nn.Module:
    return kind(_weight(layer), layer.bias)


def _tied(
    model: PreTrainedModel, made: dict[nn.Module, nn.Module]
) -> list[tuple[nn.Module, str, nn.Module, nn.Module]]:
    """The embedding, where it is the head's weight and plain."""
    head: Any = model.get_output_embeddings()
    coded, words = made.get(head), model.get_input_embeddings()
    if not isinstance(coded, Int8Rows) or type(words) is not nn.Embedding or words.weight is not head.weight:
        return []
    embedding = TiedEmbedding(coded)
    places = [(parent, name) for parent in model.modules() for name, one in parent.named_children() if one is words]
    return [(parent, name, words, embedding) for parent, name in places]


def _bytes(model: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
