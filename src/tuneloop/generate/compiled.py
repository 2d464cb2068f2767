"""steps.c, compiled for this CPU and one model's heads where a gcc is at hand, and called without PyTorch's overhead.

With few rows at a time a step of a small model spends half of its time between its matrix products: PyTorch's attention
is made for long queries, and each of its operations costs some microseconds to begin. Compiling takes a third of a
second, once for each machine. Without a compiler everything works by PyTorch's own operations.
Shapes: T tokens, E hidden size, F size between gate and down, H query heads, K key/value heads, D head size, S slots,
C places of a slot, W keys and values of a place.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tuneloop.forward.kernels import EVERYTHING, ROUNDING, kind_of, refuse_apart
from tuneloop.models import native
from tuneloop.models.native import Unbuilt

SOURCE = Path(__file__).with_name("steps.c")


@dataclass(frozen=True)
class Heads:
    """What a layer's attention is compiled for: H, K and D, and whether numbers are bfloat16 or float32."""

    asking: int
    asked: int
    size: int
    dtype: torch.dtype


class Kernels:
    """The compiled functions, over contiguous CPU tensors of one dtype; outputs are new tensors."""

    def __init__(self, library: ctypes.CDLL, heads: Heads) -> None:
        self.heads = heads
        pointer, count, number = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
        self._norm, self._gated, self._attend = library.norm, library.gated, library.attend
        self._norm.argtypes = [*[pointer] * 4, count, count, number]
        self._gated.argtypes = [*[pointer] * 3, count, count, count]
        self._attend.argtypes = [pointer, count, pointer, count, *[pointer] * 6, count, count, count, number]
        for function in (self._norm, self._gated, self._attend):
            function.restype = None

    def norm(self, x: Tensor, more: Tensor | None, weight_E: Tensor, epsilon: float) -> Tensor:
        """Llama's RMSNorm of x [1, T, E], to which `more` is added in place before."""
        _, tokens, size = x.shape
        out = torch.empty_like(x)
        added = None if more is None else more.data_ptr()
        self._norm(x.data_ptr(), added, weight_E.data_ptr(), out.data_ptr(), tokens, size, epsilon)
        return out

    def gated(self, gate: Tensor, held: Tensor) -> Tensor:
        """silu(gate) * held [1, T, F]; both may be parts of the same rows."""
        _, tokens, size = gate.shape
        out = gate.new_empty(1, tokens, size)
        self._gated(gate.data_ptr(), held.data_ptr(), out.data_ptr(), tokens, size, gate.stride(1))
        return out

    def attend(
        self,
        queries_THD: Tensor,
        kv_TW: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        slots_SCW: Tensor,
        at: tuple[Tensor, Tensor],
        window: int | None,
        scaling: float,
    ) -> Tensor:
        """Writes each token's keys and values to `at`, its slot and place [T]; what its queries read there.

        The result is [1, T, H * D]. Queries and keys are turned before by the cosines and sines [T, D] of `turn`. A
        token sees its own place and those before it, `window` at most. Between two tokens of kv there may be
        gaps.
        """
        tokens, places = len(queries_THD), slots_SCW.shape[1]
        if queries_THD.stride()[1:] != (self.heads.size, 1):
            queries_THD = queries_THD.contiguous()
        out = queries_THD.new_empty(1, tokens, self.heads.asking * self.heads.size)
        cosines, sines = (None, None) if turn is None else (turn[0].data_ptr(), turn[1].data_ptr())
        self._attend(
            queries_THD.data_ptr(), queries_THD.stride(0), kv_TW.data_ptr(), kv_TW.stride(0), cosines, sines,
            slots_SCW.data_ptr(), at[0].data_ptr(), at[1].data_ptr(), out.data_ptr(), tokens, places,
            window or EVERYTHING, scaling,
        )  # fmt: skip
        return out


def kernels_for(like: Tensor, asking: int, asked: int, size: int) -> Kernels | None:
    """What is compiled for so many heads of tensors like this one, if anything is."""
    if like.device.type != "cpu":
        return None
    found = kernels(Heads(asking, asked, size, like.dtype))
    return found if isinstance(found, Kernels) else None


@functools.cache
def kernels(heads: Heads) -> Kernels | str:
    """Compiled, or found in the cache folder, and compared with PyTorch; else why there are none. Found out once."""
    try:
        return _made(heads)
    except Unbuilt as why:
        return str(why)


def _made(heads: Heads) -> Kernels:
    if heads.dtype not in ROUNDING or heads.asking % heads.asked or heads.size % 2:
        raise Unbuilt("nothing is compiled for a model like this")
    found = Kernels(native.load(SOURCE, _definitions(heads), threads=True), heads)
    refuse_apart(_gap(found), heads.dtype)
    return found


def _definitions(heads: Heads) -> list[str]:
    """Of the preprocessor."""
    sizes = {"SIZE": heads.size, "GROUP": heads.asking // heads.asked, "HEADS": heads.asked}
    return [*kind_of(heads.dtype), *(f"{name}={value}" for name, value in sizes.items())]


def _gap(found: Kernels) -> float:
    """The largest difference from PyTorch on a small example, as a share of the results' size."""
    asking, asked, size, dtype = astuple(found.heads)
    chance = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance).to(dtype)

    with torch.inference_mode():
        x, more, weight, angle = some(1, 3, 80), some(1, 3, 80), some(80), torch.rand(3, size // 2, generator=chance)
        summed = (x + more).float()
        normed = (summed * torch.rsqrt(summed.square().mean(-1, keepdim=True) + 1e-5)).to(dtype) * weight
        both, heads, slots = some(1, 3, 80), some(3, asking + 2 * asked, size), some(3, 150, 2 * asked * size)
        row, at = torch.tensor([0, 1, 2]), torch.tensor([0, 5, 146])
        turn = (angle.cos().repeat(1, 2).to(dtype), angle.sin().repeat(1, 2).to(dtype))
        rolled = torch.cat([-heads[..., size // 2 :], heads[..., : size // 2]], -1)
        asks, keys = (
            (heads * turn[0][:, None] + rolled * turn[1][:, None])
            .split([asking + asked, asked], 1)[0]
            .split([asking, asked], 1)
        )
        seen = []
        for token, end in enumerate((at + 1).tolist()):
            begin = max(0, end - 140)
            held = slots[token].view(150, 2, asked, size).clone()
            held[at[token]] = torch.stack([keys[token], heads[token, asking + asked :]])
            k, v = (held[begin:end, part].transpose(0, 1)[None].float() for part in (0, 1))
            q = asks[token][None, :, None].float()
            seen.append(F.scaled_dot_product_attention(q, k, v, scale=0.2, enable_gqa=True).flatten())
        pairs = [
            (found.norm(x.clone(), more, weight, 1e-5), normed),
            (found.gated(both[..., :40], both[..., 40:]), F.silu(both[..., :40]) * both[..., 40:]),
            (
                found.attend(heads[:, :asking], heads[:, asking:].flatten(1), turn, slots.clone(), (row, at), 140, 0.2),
                torch.stack(seen)[None],
            ),
        ]
    return max(float((ours.float() - own.float()).norm() / own.float().norm()) for ours, own in pairs)
