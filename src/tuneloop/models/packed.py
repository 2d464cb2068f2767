"""Linear layers for answering on a CPU: their weights laid out as oneDNN reads them best, which `F.linear` does anew in
each product.

Few rows at a time, as in generation, are bound by that: of SmolLM2-135M's layers one row takes half to two thirds of
the time in bfloat16, and half of it in float32. In bfloat16 the result has the same bits (on
AVX512-BF16, the only CPU tried); with a bias it is rounded once instead of twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXACT = 16
"""Rows up to which each number is compiled for: those of steps, which come again and again."""
STEPS = ((256, 16), (1024, 64))
"""(most rows, multiple to which they are filled up)."""
MOST = STEPS[-1][0]
"""Rows of one product; more are computed in parts."""


class PackedLinear(nn.Linear):
    """A frozen linear layer whose `weight` is opaque: it has a shape and a dtype, and is of use to oneDNN alone."""

    def forward(self, input: Tensor) -> Tensor:
        return _product(input, self.weight, self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer: what is opaque cannot be copied."""
        return _plain(self.weight.to_dense(), self.bias)


class PackedHead(nn.Linear):
    """A frozen head that keeps its weight as well: embeddings and losses read it."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return _product(input, self.packed, self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer, as PackedLinear's copy is."""
        return _plain(self.weight.detach().clone(), self.bias)


class PackedPart(nn.Linear):
    """A frozen layer whose outputs are some of a larger product's (`beside`): its `weight` has a shape and no values.

    Called alone it takes its part of that whole product, which costs as much as all parts.
    """

    whole: Beside
    place: slice

    def forward(self, input: Tensor) -> Tensor:
        return self.whole.product(input)[..., self.place]

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer, as PackedLinear's copy is."""
        bias = self.whole.bias
        return _plain(self.whole.weight.to_dense()[self.place].clone(), None if bias is None else bias[self.place])


class Beside:
    """Layers of the same input as one product: few rows at a time wait as long for its beginning as for its numbers."""

    def __init__(self, layers: Sequence[PackedLinear]) -> None:
        """Turns the layers into parts of this one."""
        weights = [layer.weight.to_dense() for layer in layers]
        self.layers: list[nn.Module] = list(layers)
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(torch.cat(weights))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = torch.cat([bias.detach() for bias in biases]) if biases else None
        self.sizes = [layer.out_features for layer in layers]
        begin = 0
        for layer, weight in zip(layers, weights, strict=True):
            part: Any = layer
            part.__class__, part.bias = PackedPart, None
            part.weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
            part.whole, part.place = self, slice(begin, begin + layer.out_features)
            begin += layer.out_features

    def product(self, x: Tensor) -> Tensor:
        """What the layers make of x, behind one another in the last dimension; no hook is called."""
        return _product(x, self.weight, self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """The same, with what the layers' hooks make of it."""
        out = self.product(x)
        if not any(layer._forward_hooks for layer in self.layers):
            return out
        parts = out.split(self.sizes, -1)
        changed = [_hooked(layer, x, part) for layer, part in zip(self.layers, parts, strict=True)]
        return out if all(one is other for one, other in zip(changed, parts, strict=True)) else torch.cat(changed, -1)


def beside(layers: Sequence[nn.Module]) -> Beside | None:
    """The product that the layers are all parts of, in this order; None where there is none."""
    whole: Beside | None = getattr(layers[0], "whole", None)
    return whole if whole is not None and whole.layers == list(layers) else None


def lay_beside(layers: Sequence[nn.Module]) -> None:
    """Makes one product of the layers, which get the same input; nothing happens where they are not packed alike."""
    kinds = {
        (type(layer), layer.bias is None, layer.weight.dtype, layer.in_features)
        for layer in layers
        if isinstance(layer, nn.Linear)
    }
    if len(kinds) == 1 and all(type(layer) is PackedLinear for layer in layers):
        Beside(layers)  # type: ignore[arg-type]  # seen just now


def pack(model: nn.Module) -> int:
    """Packs the linear layers of a model that will not be trained, merged or saved any more; their number.

    Layers stay the objects that they were, with their names and hooks. None is packed on other devices than CPUs, in
    other dtypes than float32 and bfloat16 (where the CPU has it), and below a DoRA adapter, which reads the weight.
    """
    if not torch.backends.mkldnn.is_available():
        return 0
    head: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    read = {module.base_layer for module in model.modules() if any((getattr(module, "use_dora", None) or {}).values())}
    count = 0
    for module in model.modules():
        if type(module) is not nn.Linear or module in read or not _suits(module.weight):
            continue
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach())
        if module is head:
            module.__class__, module.packed = PackedHead, packed
        else:
            module.__class__, module.weight = PackedLinear, nn.Parameter(packed, requires_grad=False)
        count += 1
    return count


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """What `layer(x)` is, without the price of calling a module where it is a packed one that nobody watches."""
    if type(layer) is PackedLinear and not layer._forward_hooks:
        return _product(x, layer.weight, layer.bias)
    return layer(x)


def _hooked(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    """What the forward hooks of a layer make of its output, as calling it would."""
    for hook in layer._forward_hooks.values():
        changed = hook(layer, (x,), out)
        out = out if changed is None else changed
    return out


def _suits(weight: Tensor) -> bool:
    if type(weight.data) is not Tensor or weight.device.type != "cpu" or weight.is_mkldnn or not weight.numel():
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32


def _plain(weight_OI: Tensor, bias_O: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight_OI, requires_grad=False)
    if bias_O is not None:
        made.bias = nn.Parameter(bias_O.detach().clone(), requires_grad=False)
    return made.eval()


def in_few_sizes(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """product(x) of x [..., I], computed in one of few numbers of rows.

    oneDNN compiles a product for each number, in some milliseconds, and keeps what it compiled, half a megabyte to
    two: a service that met prompts of all lengths grew by gigabytes.
    """
    parts = [_filled_up(product, part) for part in x.reshape(-1, x.shape[-1]).split(MOST)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(*x.shape[:-1], -1)


def _filled_up(product: Callable[[Tensor], Tensor], x_TI: Tensor) -> Tensor:
    rows = len(x_TI)
    missing = -rows % next(multiple for most, multiple in STEPS if rows <= most)
    return product(F.pad(x_TI, (0, 0, 0, missing)))[:rows] if missing else product(x_TI)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    compute = torch.ops.mkldnn._linear_pointwise.default
    if x.shape[:-1].numel() <= EXACT:
        return compute(x, packed, bias, "none", [], "")
    return in_few_sizes(lambda rows: compute(rows, packed, bias, "none", [], ""), x)
