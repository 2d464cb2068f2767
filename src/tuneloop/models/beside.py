"""Layers of the same input as one product: with few rows at a time its beginning takes as long as its numbers.

For models that only answer. Knows nothing of models, but of layers that can be `joined`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn


class Joinable(Protocol):
    """A frozen linear layer [O, I] that can be one with others of the same inputs."""

    in_features: int
    out_features: int
    bias: Tensor | None

    @classmethod
    def joined(cls, layers: Sequence[Self]) -> Self:
        """One layer with the outputs of all, one behind the other."""
        ...

    def forward(self, input: Tensor) -> Tensor: ...

    def dense(self) -> Tensor:
        """The weights [O, I]."""
        ...


class Part(nn.Linear):
    """A layer whose outputs are some of a larger product's: its `weight` has a shape and no values.

    Called alone it takes its part of that whole product, which costs as much as all parts.
    """

    whole: Beside
    place: slice

    def forward(self, input: Tensor) -> Tensor:
        return self.whole.product(input)[..., self.place]

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer."""
        layer = self.whole.layer
        return plain(layer.dense()[self.place].clone(), None if layer.bias is None else layer.bias[self.place])


class Beside:
    """The product, and the layers that are now parts of it."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """Turns the layers, all of one kind that is Joinable, into parts. They stay the objects that they were."""
        self.layer: Joinable = type(layers[0]).joined(layers)
        self.layers: list[nn.Module] = list(layers)
        self.sizes = [layer.out_features for layer in layers]
        begin = 0
        for part, size in zip(layers, self.sizes, strict=True):
            # not on `meta`: a model's device is that of its first parameter
            no_values = torch.zeros((), dtype=part.weight.dtype).expand(part.weight.shape)
            part.__class__, part.bias = Part, None
            for name in [name for name in part._buffers if name != "bias"]:
                delattr(part, name)
            part.weight = nn.Parameter(no_values, requires_grad=False)
            part.whole, part.place = self, slice(begin, begin + size)
            begin += size

    def product(self, x: Tensor) -> Tensor:
        """What the layers make of x, behind one another in the last dimension; no hook is called."""
        return self.layer.forward(x)

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
    """Makes one product of layers that get the same input; nothing happens where they are not alike and joinable."""
    kinds = {type(layer) for layer in layers}
    if len(kinds) == 1 and all(hasattr(kind, "joined") for kind in kinds):
        known: list[Any] = list(layers)
        if len({(one.bias is None, one.weight.dtype, one.in_features) for one in known}) == 1:
            Beside(known)


def plain(weight_OI: Tensor, bias_O: Tensor | None) -> nn.Linear:
    """A frozen layer of torch's own with these weights."""
    made = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight_OI, requires_grad=False)
    if bias_O is not None:
        made.bias = nn.Parameter(bias_O.detach().clone(), requires_grad=False)
    return made.eval()


def _hooked(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    """What the forward hooks of a layer make of its output, as calling it would."""
    for hook in layer._forward_hooks.values():
        changed = hook(layer, (x,), out)
        out = out if changed is None else changed
    return out
