"""kernels.c, compiled for this CPU where a gcc is at hand: what stands between the matrix products of a training step.

PyTorch's attention on CPU is made for long rows, and its element-wise operations each read and write the whole of
memory. Compiling takes a second, once for each machine; without a compiler everything works by PyTorch's operations.
Shapes: T tokens, H query heads, K key/value heads, D head size, N tokens of all rows, R rows, E hidden size,
V vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tuneloop.models import native
from tuneloop.models.native import Unbuilt

SOURCE = Path(__file__).with_name("kernels.c")
EVERYTHING = 1 << 62
"""A window without an end."""
ROUNDING = {torch.bfloat16: 0.02, torch.float32: 1e-5}
"""How far results may be from PyTorch's own, as a share of their size; the dtypes are those that are compiled for."""


@dataclass(frozen=True)
class Rows:
    """Where rows lie among T tokens, for C."""

    paths_N: Tensor
    start: Tensor
    """[R + 1]: where each row begins in `paths_N`, and its end."""
    known_R: Tensor
    """Tokens at the beginning of each row whose queries belong to another row."""
    order_R: Tensor
    """Rows with the most work first."""
    in_order: bool
    """The rows' tokens, one after the other, are all T tokens."""

    @classmethod
    def of(cls, paths_N: Tensor, lengths: Sequence[int], known: Sequence[int], tokens: int) -> Rows:
        """Of rows with so many tokens each."""
        sizes, known_R = torch.tensor(lengths), torch.tensor(known)
        start = F.pad(sizes.cumsum(0), (1, 0))
        work = (sizes - known_R) * sizes
        in_order = torch.equal(paths_N, torch.arange(tokens))
        return cls(paths_N.contiguous(), start, known_R, work.argsort(descending=True), in_order)


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


def kernels_for(like: Tensor) -> Kernels | None:
    """What is compiled for tensors like this one, if anything is."""
    if like.device.type != "cpu" or like.dtype not in ROUNDING:
        return None
    found = kernels(like.dtype)
    return found if isinstance(found, Kernels) else None


def why_none(like: Tensor) -> str:
    """Why nothing is compiled for tensors for which something could be; empty where it is, or where nothing could."""
    found = kernels(like.dtype) if like.device.type == "cpu" and like.dtype in ROUNDING else ""
    return found if isinstance(found, str) else ""


@functools.cache
def kernels(dtype: torch.dtype) -> Kernels | str:
    """Compiled, or found in the cache folder, and compared with PyTorch; else why there are none. Found out once."""
    try:
        return _made(dtype)
    except Unbuilt as why:
        return str(why)


def _made(dtype: torch.dtype) -> Kernels:
    found = Kernels(native.load(SOURCE, kind_of(dtype), threads=True))
    refuse_apart(_gap(found, dtype), dtype)
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


def _gap(found: Kernels, dtype: torch.dtype) -> float:
    """The largest difference from PyTorch in float64 on a small example, as a share of the results' size."""
    chance = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance).to(dtype)

    with torch.inference_mode(False), torch.enable_grad():
        pairs = [*_attended(found, some), *_others(found, some)]
    return max(float((ours.double() - own).norm() / own.norm()) for ours, own in pairs)


Some = Callable[..., Tensor]
Pairs = Iterator[tuple[Tensor, Tensor]]


def _attended(found: Kernels, some: Some) -> Pairs:
    """Two rows that share their first tokens, longer than a block of queries, in a window."""
    paths, tokens, window, scaling = [[*range(70)], [*range(20), *range(70, 90)]], 90, 50, 0.3
    rows = Rows.of(torch.tensor(paths[0] + paths[1]), [70, 40], [0, 20], tokens)
    q, k, v, slope = some(1, 4, tokens, 20), some(1, 2, tokens, 20), some(1, 2, tokens, 20), some(tokens, 4, 20)
    out, total = found.attend(q, k, v, rows, window, scaling)
    of_q, *of_rest = found.attend_back(slope, q, k, v, total, rows, window, scaling)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    read = out.new_zeros(out.shape, dtype=torch.float64)
    for path, known in zip(paths, (0, 20), strict=True):
        seen = torch.ones(len(path), len(path), dtype=torch.bool).tril().triu(1 - window)
        own = (x[:, :, path] for x in exact)
        part = F.scaled_dot_product_attention(*own, attn_mask=seen, scale=scaling, enable_gqa=True)
        read = read.index_copy(0, torch.tensor(path[known:]), part[0].transpose(0, 1)[known:])
    grads = torch.autograd.grad(read, exact, slope.double())
    yield out, read.detach()
    yield of_q, grads[0][0].transpose(0, 1)
    for ours, own in zip(of_rest, grads[1:], strict=True):
        yield (
            torch.zeros_like(own[0].transpose(0, 1)).index_add_(0, rows.paths_N, ours.double()),
            own[0].transpose(0, 1),
        )


def _others(found: Kernels, some: Some) -> Pairs:
    x, weight, slope = 3 * some(7, 80), some(80), some(7, 80)
    exact, weighed = x.double().requires_grad_(), weight.double().requires_grad_()
    normed = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-5) * weighed
    out, factor = found.norm(x, weight, 1e-5)
    of_x, of_weight = found.norm_back(slope, x, weight, factor, True)
    assert of_weight is not None
    yield from zip([out, of_x, of_weight], _with_gradients(normed, [exact, weighed], slope), strict=True)
    gate, held = (y.double().requires_grad_() for y in (x, slope))
    ours = [found.gated(x, slope), *found.gated_back(slope, x, slope)]
    yield from zip(ours, _with_gradients(F.silu(gate) * held, [gate, held], slope), strict=True)
    heads, more, angle = some(1, 3, 5, 20), some(1, 3, 5, 20), some(1, 5, 20)
    point, cosine, sine = heads.double().requires_grad_(), angle.cos(), angle.sin()
    turned = point * cosine.double() + torch.cat([-point[..., 10:], point[..., :10]], -1) * sine.double()
    ours = [found.turn(heads, cosine, sine, back=False), found.turn(more, cosine, sine, back=True)]
    yield from zip(ours, _with_gradients(turned, [point], more), strict=True)
    logits, targets, weights = x.clone(), torch.arange(7) * 5, some(7).float()
    exact = x.double().requires_grad_()
    log_p = exact.log_softmax(-1)
    nll_N, mean_N = -log_p.gather(-1, targets[:, None])[:, 0], -log_p.mean(-1)
    slopes = torch.autograd.grad((weights * nll_N.detach().neg().exp() * torch.lerp(nll_N, mean_N, 0.1)).sum(), exact)
    ours = found.likelihood(logits, targets, weights, 0.1, True)
    yield from zip([*ours, logits], [nll_N.detach(), mean_N.detach(), *slopes], strict=True)


def _with_gradients(out: Tensor, inputs: Sequence[Tensor], slope: Tensor) -> list[Tensor]:
    return [out.detach(), *torch.autograd.grad(out, inputs, slope.to(out.dtype))]
