"""Linear layers for answering on a CPU: their weights laid out as oneDNN reads them best, which `F.linear` does anew in
each product.

Few rows at a time, as in generation, are bound by that: of SmolLM2-135M's layers one row takes half to two thirds of
the time in bfloat16, and half of it in float32. In bfloat16 the result has the same bits (on
AVX512-BF16, the only CPU tried); with a bias it is rounded once instead of twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
