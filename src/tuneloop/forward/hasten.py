"""Faster forms of what a model's modules compute, put on those whose code is known to compute just that.

transformers copies Llama's norm, gated feed-forward and turning by place into most architectures, under other names;
they are known by their compiled code. The forms stand on single modules and are taken off again; nothing that is stored
of a model changes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor, nn
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

from tuneloop.forward import fused, norms
from tuneloop.forward.kernels import kernels_for

TURN = "apply_rotary_pos_emb"
_OURS = "_tuneloop_own"
"""On a function that stands in for a module's forward."""


def hasten(model: nn.Module) -> None:
    """All that is known."""
    hasten_norms(model)
    for module in model.modules():
        if _is_same(llama.LlamaMLP.forward, type(module).forward) and isinstance(
            module.act_fn, nn.SiLU | SiLUActivation
        ):
            _put(module, _feed)
        elif _turns_as_llama(type(module)):
            _put(module, _with_turn(type(module).forward))


def hasten_norms(model: nn.Module) -> int:
    """The norms alone; their number."""
    found = [module for module in model.modules() if is_llamas_norm(type(module))]
    for module in found:
        _put(module, norms.norm)
    return len(found)


def own_forms(model: nn.Module) -> None:
    """The model's own modules again."""
    for module in model.modules():
        if hasattr(getattr(module.__dict__.get("forward"), "__func__", None), _OURS):
            del module.forward


def is_llamas_norm(kind: type[nn.Module]) -> bool:
    """Whether a class computes Llama's RMSNorm; Gemma's counts from 1 and is not."""
    return _is_same(llama.LlamaRMSNorm.forward, kind.forward)


def _put(module: nn.Module, forward: Callable[..., Any]) -> None:
    if "forward" not in module.__dict__:  # else somebody else, such as accelerate, stands there already
        setattr(forward, _OURS, True)
        module.forward = MethodType(forward, module)


def _is_same(ours: Any, theirs: Any) -> bool:
    """Whether two functions have the same code, whatever module it stands in."""
    one, other = (getattr(function, "__code__", None) for function in (ours, theirs))
    if one is None or other is None:
        return False
    return all(getattr(one, part) == getattr(other, part) for part in ("co_code", "co_names", "co_consts"))


def _feed(self: Any, x: Tensor) -> Tensor:
    """LlamaMLP.forward."""
    gate, held = self.gate_proj(x), self.up_proj(x)
    kernels = kernels_for(gate)
    if kernels is None or gate.dtype is not held.dtype:
        return self.down_proj(self.act_fn(gate) * held)
    return self.down_proj(fused.gated(kernels, gate, held))


def _turns_as_llama(kind: type[nn.Module]) -> bool:
    """Whether the class's forward calls a copy of Llama's `apply_rotary_pos_emb`, with its `rotate_half`."""
    code = getattr(kind.forward, "__code__", None)
    if code is None or TURN not in code.co_names:
        return False
    theirs = kind.forward.__globals__.get(TURN)
    if not isinstance(theirs, FunctionType) or not _is_same(getattr(llama, TURN), theirs):
        return False
    return _is_same(llama.rotate_half, theirs.__globals__.get("rotate_half"))


def _with_turn(forward: Any) -> FunctionType:
    """The same function, to which `apply_rotary_pos_emb` means ours."""
    own = forward.__globals__[TURN]

    def turn(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        kernels = kernels_for(q)
        one = len(q) == 1 and cos.shape == sin.shape == (1, *q.shape[2:])
        if kernels is None or not one or unsqueeze_dim != 1 or not q.dtype is k.dtype is cos.dtype is sin.dtype:
            return own(q, k, cos, sin, unsqueeze_dim)
        return fused.turned(kernels, q, k, cos, sin)

    names = {**forward.__globals__, TURN: turn}
    made = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    return made
