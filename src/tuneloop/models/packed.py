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

from tuneloop.models.beside import plain

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

    @classmethod
    def joined(cls, layers: Sequence[PackedLinear]) -> PackedLinear:
        """As Joinable's."""
        biases: list[Tensor] = [layer.bias for layer in layers if isinstance(layer.bias, Tensor)]
        return _packed(plain(torch.cat([layer.dense() for layer in layers]), torch.cat(biases) if biases else None))

    def dense(self) -> Tensor:
        """The weights [O, I] in torch's order."""
        return self.weight.to_dense()

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer: what is opaque cannot be copied."""
        return plain(self.dense(), self.bias)


class PackedHead(nn.Linear):
    """A frozen head that keeps its weight as well: embeddings and losses read it."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return _product(input, self.packed, self.bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer, as PackedLinear's copy is."""
        return plain(self.weight.detach().clone(), self.bias)


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
        if module is head:
            module.__class__, module.packed = PackedHead, _reordered(module.weight)
        else:
            _packed(module)
        count += 1
    return count


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """What `layer(x)` is, without the price of calling a module where it is a packed one that nobody watches."""
    if type(layer) is PackedLinear and not layer._forward_hooks:
        return _product(x, layer.weight, layer.bias)
    return layer(x)


def _packed(layer: Any) -> PackedLinear:
    layer.__class__, layer.weight = PackedLinear, nn.Parameter(_reordered(layer.weight), requires_grad=False)
    return layer


def _reordered(weight_OI: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach())


def _suits(weight: Tensor) -> bool:
    if type(weight.data) is not Tensor or weight.device.type != "cpu" or weight.is_mkldnn or not weight.numel():
        return False
    if weight.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype is torch.float32


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
