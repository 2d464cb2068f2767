"""Frozen linear layers with weights in 8 bits and activations as they are; imported only where bitsandbytes is."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from bitsandbytes.nn.modules import Linear8bitLt
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Int8Linear(Linear8bitLt):
    """The layer that bitsandbytes loads, with one product for training and evaluation: theirs rounds the activations
    to 8 bits too, on a GPU always, on a CPU in evaluation mode only."""

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.weight
        if weight.CB is not None:  # once, after loading
            self.init_8bit_state()
        return Int8Product.apply(x, self.state.CB, self.state.SCB, self.bias)  # type: ignore[return-value]


class Int8Product(Function):
    """x Wᵀ + b for W = codes · scale / 127 by rows. W exists only while it is used, in the backward pass again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(codes_OI, scale_O)
        return F.linear(x, _weight(codes_OI, scale_O, x), None if bias_O is None else bias_O.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        codes_OI, scale_O = ctx.saved_tensors
        return grads[0] @ _weight(codes_OI, scale_O, grads[0]), None, None, None


def _weight(codes_OI: Tensor, scale_O: Tensor, like: Tensor) -> Tensor:
    return codes_OI.to(like.dtype) * (scale_O[:, None] / 127).to(like.dtype)
