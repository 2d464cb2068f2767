"""kernels.c, compiled for this CPU where a gcc is at hand: what stands between the matrix products of a training step.

PyTorch's attention on CPU is made for long rows, and its element-wise operations each read and write the whole of
memory. Compiling takes a second, once for each machine; without a compiler everything works by PyTorch's operations.
Shapes: T tokens, H query heads, K key/value heads, D head size, N tokens of all rows, R rows, E hidden size,
V vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tuneloop.forward import compared
from tuneloop.forward.layout import Rows
from tuneloop.models import native
from tuneloop.models.native import Unbuilt

if TYPE_CHECKING:
    from tuneloop.forward.gpu import GpuKernels

SOURCE = Path(__file__).with_name("kernels.c")
EVERYTHING = 1 << 62
"""A window without an end."""
ROUNDING = {torch.bfloat16: 0.02, torch.float32: 1e-5}
"""How far results may be from PyTorch's own, as a share of their size; the dtypes are those that are compiled for."""


NEEDING_MEMORY = ("attend", "attend_back", "likelihood")
"""Functions that tell whether they got it."""


class Kernels:
    """The compiled functions, over CPU tensors of one dtype; outputs are new tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, count, number, flag = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
        heads, rows = [pointer, count, count], [*[pointer] * 4, *[count] * 5, number]
        self._functions: dict[str, Any] = {}
        for name, kinds in {
            "attend": [*heads * 3, pointer, pointer, *rows],
            "attend_back": [*heads * 4, *[pointer] * 4, *rows],
            "norm": [*[pointer] * 4, count, count, number],
            "norm_back": [*[pointer] * 6, count, count],
            "turn": [*heads, *[pointer] * 3, *[count] * 3, flag],
            "gated": [*[pointer] * 3, count],
            "gated_back": [*[pointer] * 5, count],
            "likelihood": [*[pointer] * 5, count, count, number, flag],
        }.items():
            function = getattr(library, name)
            function.argtypes, function.restype = kinds, flag if name in NEEDING_MEMORY else None
            self._functions[name] = function

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, rows: Rows, window: int | None, scaling: float
    ) -> tuple[Tensor, Tensor]:
        """q [1, H, T, D], k and v [1, K, T, D] → what queries read [T, H, D], and the logarithms of their sums [T, H].

        Queries see their own token and those before it in its row, `window` of them at most.
        """
        _, heads, tokens, size = q.shape
        out, total = q.new_empty(tokens, heads, size), q.new_empty(tokens, heads, dtype=torch.float32)
        given = [part for x in (q, k, v) for part in _heads(x)]
        self._attention("attend", [*given, out, total], rows, q, k, window, scaling)
        return out, total

    def attend_back(
        self,
        slope_THD: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        total_TH: Tensor,
        rows: Rows,
        window: int | None,
        scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q [T, H, D], and of k and v [N, K, D] in float32: a place of each row's tokens for itself."""
        _, heads, tokens, size = q.shape
        of_q = q.new_empty(tokens, heads, size)
        of_k, of_v = (k.new_empty(len(rows.paths_N), k.shape[1], size, dtype=torch.float32) for _ in range(2))
        given = [part for x in (q, k, v, slope_THD.transpose(0, 1)[None]) for part in _heads(x)]
        self._attention("attend_back", [*given, total_TH, of_q, of_k, of_v], rows, q, k, window, scaling)
        return of_q, of_k, of_v

    def _attention(
        self,
        name: str,
        given: Sequence[Tensor | int],
        rows: Rows,
        q: Tensor,
        k: Tensor,
        window: int | None,
        scaling: float,
    ) -> None:
        places = [rows.paths_N, rows.start, rows.known_R, rows.order_R]
        sizes = [len(rows.known_R), q.shape[1], k.shape[1], q.shape[3], window or EVERYTHING]
        self._call(name, *given, *places, *sizes, scaling)

    def norm(self, x: Tensor, weight_E: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Llama's RMSNorm of a contiguous x [..., E], and each token's factor 1 / sqrt(mean(x²) + ε) in float32."""
        size = x.shape[-1]
        out, factor = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
        self._call("norm", x, weight_E, out, factor, factor.numel(), size, epsilon)
        return out, factor

    def norm_back(
        self, slope: Tensor, x: Tensor, weight_E: Tensor, factor: Tensor, with_weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of x and of the weight."""
        size = x.shape[-1]
        out = torch.empty_like(x)
        sums = x.new_zeros(torch.get_num_threads(), size, dtype=torch.float32) if with_weight else None
        self._call("norm_back", slope.contiguous(), x, weight_E, factor, out, sums, factor.numel(), size)
        return out, None if sums is None else sums.sum(0).to(x.dtype)

    def turn(self, x: Tensor, cosine: Tensor, sine: Tensor, *, back: bool) -> Tensor:
        """x [1, H, T, D] turned by contiguous cosines and sines [1, T, D]; `back`: slopes, the other way round."""
        _, heads, tokens, size = x.shape
        out = x.new_empty(tokens, heads, size)
        self._call("turn", *_heads(x), cosine, sine, out, tokens, heads, size, back)
        return out.transpose(0, 1)[None]

    def gated(self, gate: Tensor, held: Tensor) -> Tensor:
        """silu(gate) · held, of contiguous tensors of one shape."""
        out = torch.empty_like(gate)
        self._call("gated", gate, held, out, gate.numel())
        return out

    def gated_back(self, slope: Tensor, gate: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both."""
        of_gate, of_held = torch.empty_like(gate), torch.empty_like(gate)
        self._call("gated_back", slope.contiguous(), gate, held, of_gate, of_held, gate.numel())
        return of_gate, of_held

    def likelihood(
        self, logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor | None, smoothing: float, dft: bool
    ) -> tuple[Tensor, Tensor]:
        """(-log p(target) [N], the mean of -log p over the vocabulary [N]), in float32.

        With weights [N] in float32 logits become, in place, the slopes of the weighted loss (loss.py's Shaping).
        """
        nll_N, mean_N = (logits_NV.new_empty(len(logits_NV), dtype=torch.float32) for _ in range(2))
        places = targets_N.contiguous()
        self._call("likelihood", logits_NV, places, weights_N, nll_N, mean_N, *logits_NV.shape, smoothing, dft)
        return nll_N, mean_N

    def _call(self, name: str, *given: Tensor | float | None) -> None:
        done = self._functions[name](*[x.data_ptr() if isinstance(x, Tensor) else x for x in given])
        if name in NEEDING_MEMORY and not done:
            raise MemoryError(f"{name}: no memory for what is computed between")


def kernels_for(like: Tensor) -> Kernels | GpuKernels | None:
    """What there is for tensors like this one: compiled by gcc for the CPU, or by Triton for a GPU."""
    found = _found(like)
    return None if isinstance(found, str) else found


def why_none(like: Tensor) -> str:
    """Why there is nothing for tensors for which something could be; empty where it is, or where nothing could."""
    found = _found(like)
    return found if isinstance(found, str) else ""


def _found(like: Tensor) -> Kernels | GpuKernels | str:
    if like.dtype not in ROUNDING:
        return ""
    if like.device.type == "cpu":
        return kernels(like.dtype)
    if like.device.type == "cuda" and like.device.index == torch.cuda.current_device():
        return on_gpu(like.dtype, like.device.type)
    return ""


@functools.cache
def kernels(dtype: torch.dtype) -> Kernels | str:
    """Compiled, or found in the cache folder, and compared with PyTorch; else why there are none. Found out once."""
    try:
        found = Kernels(native.load(SOURCE, kind_of(dtype), threads=True))
        refuse_apart(compared.gap(chain(compared.attended(found, dtype), compared.others(found, dtype))), dtype)
    except Unbuilt as why:
        return str(why)
    return found


@functools.cache
def on_gpu(dtype: torch.dtype, device: str) -> GpuKernels | str:
    """The same for the GPU, of what stands beside attention."""
    try:
        from tuneloop.forward.gpu import GpuKernels  # Triton comes with PyTorch for GPUs only

        found = GpuKernels()
        refuse_apart(compared.gap(compared.others(found, dtype, device)), dtype)
    except Unbuilt as why:
        return str(why)
    except Exception as error:  # noqa: BLE001  a compiler for any GPU may raise anything, and nothing depends on it
        return f"Triton: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return found


def kind_of(dtype: torch.dtype) -> list[str]:
    """The preprocessor's definitions for numbers of this type (models/numbers.h)."""
    return ["BFLOAT16"] if dtype is torch.bfloat16 else []


def refuse_apart(gap: float, dtype: torch.dtype) -> None:
    """Raises Unbuilt where the compiled differs from PyTorch by more than rounding."""
    if not gap <= ROUNDING[dtype]:
        raise Unbuilt(f"what was compiled differs from PyTorch by {gap:.2g}")


def _heads(x: Tensor) -> tuple[int, int, int]:
    """Of [1, H, T, D]: where it is, and the steps to the next token and head."""
    return x.data_ptr(), x.stride(2), x.stride(1)
