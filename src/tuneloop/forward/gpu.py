"""What stands between the matrix products of a training step on a GPU, in Triton: norms, turns by place, gates, loss.

Each reads and writes memory once where PyTorch's operations do so several times; formulas and roundings are those of
kernels.c. CUDA builds of PyTorch bring Triton along; without it everything works by PyTorch's operations.
Shapes as in kernels.py: T tokens, E hidden size, H heads, D head size, N scored positions, V vocabulary.
"""

# Triton may be absent, and what it makes of a function is called otherwise than the function.
# pyright: reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 1024
"""Numbers of one program where all are computed alike."""
PIECE = 8192
"""Logits of a position that are looked at together."""
PROGRAMS = 256
"""That add up a norm's gradient, each over its share of the tokens: about two for each processor of a large GPU."""


@triton.jit
def _exact(x, like):
    """Rounded as numbers of the type that `like` points to are."""
    return x.to(like.dtype.element_ty).to(tl.float32)


@triton.jit
def _norm(x_TE, weight_E, out_TE, factor_T, size, epsilon, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < size
    x = tl.load(x_TE + token * size + at, mask=real, other=0.0).to(tl.float32)
    factor = 1.0 / tl.sqrt(tl.sum(x * x) / size + epsilon)
    tl.store(factor_T + token, factor)
    weight = tl.load(weight_E + at, mask=real).to(tl.float32)
    tl.store(out_TE + token * size + at, _exact(x * factor, out_TE) * weight, mask=real)


@triton.jit
def _norm_back(
    slope_TE,
    x_TE,
    weight_E,
    factor_T,
    of_x_TE,
    of_weight_PE,
    tokens,
    size,
    BLOCK: tl.constexpr,
    WEIGHED: tl.constexpr,
):
    """`of_weight_PE` are sums over the tokens of each program."""
    program = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    real = at < size
    weight = tl.load(weight_E + at, mask=real, other=0.0).to(tl.float32)
    sums = tl.zeros([BLOCK], dtype=tl.float32)
    wide = tl.full([], 1, tl.int64) * size
    for token in range(program, tokens, tl.num_programs(0)):
        begin = token * wide
        x = tl.load(x_TE + begin + at, mask=real, other=0.0).to(tl.float32)
        slope = tl.load(slope_TE + begin + at, mask=real, other=0.0).to(tl.float32)
        factor = tl.load(factor_T + token)
        along = tl.sum(slope * weight * x) * factor * factor / size
        tl.store(of_x_TE + begin + at, (slope * weight - x * along) * factor, mask=real)
        if WEIGHED:
            sums += slope * _exact(x * factor, x_TE)
    if WEIGHED:
        tl.store(of_weight_PE + program * size + at, sums, mask=real)


@triton.jit
def _turn(
    x_HTD,
    of_token,
    of_head,
    cosine_TD,
    sine_TD,
    out_THD,
    heads,
    size,
    BLOCK: tl.constexpr,
    BACK: tl.constexpr,
):
    """One head of one token; its two halves are the coordinates of points."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    half = size // 2
    at = tl.arange(0, BLOCK)
    real = at < half
    begin, to = x_HTD + token * of_token + head * of_head, out_THD + (token * heads + head) * size
    low = tl.load(begin + at, mask=real).to(tl.float32)
    high = tl.load(begin + half + at, mask=real).to(tl.float32)
    cosine_low = tl.load(cosine_TD + token * size + at, mask=real).to(tl.float32)
    cosine_high = tl.load(cosine_TD + token * size + half + at, mask=real).to(tl.float32)
    sine_low = tl.load(sine_TD + token * size + at, mask=real).to(tl.float32)
    sine_high = tl.load(sine_TD + token * size + half + at, mask=real).to(tl.float32)
    if BACK:
        first = low * cosine_low + high * sine_high
        second = high * cosine_high - low * sine_low
    else:
        first = _exact(low * cosine_low, out_THD) + _exact(-high * sine_low, out_THD)
        second = _exact(high * cosine_high, out_THD) + _exact(low * sine_high, out_THD)
    tl.store(to + at, first, mask=real)
    tl.store(to + half + at, second, mask=real)


@triton.jit
def _gated(gate, held, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < count
    x = tl.load(gate + at, mask=real).to(tl.float32)
    tl.store(out + at, _exact(x * tl.sigmoid(x), out) * tl.load(held + at, mask=real).to(tl.float32), mask=real)


@triton.jit
def _gated_back(slope, gate, held, of_gate, of_held, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < count
    s, x = tl.load(slope + at, mask=real).to(tl.float32), tl.load(gate + at, mask=real).to(tl.float32)
    h, opened = tl.load(held + at, mask=real).to(tl.float32), tl.sigmoid(x)
    tl.store(of_gate + at, s * h * opened * (1.0 + x * (1.0 - opened)), mask=real)
    tl.store(of_held + at, s * _exact(x * opened, of_held), mask=real)


@triton.jit
def _likelihood(
    logits_NV,
    target_N,
    weights_N,
    nll_N,
    mean_N,
    size,
    smoothing,
    BLOCK: tl.constexpr,
    SLOPES: tl.constexpr,
    DFT: tl.constexpr,
):
    """One position. The sum of exponentials is kept relative to the largest logit so far (arXiv 1805.02867)."""
    position = tl.program_id(0).to(tl.int64)
    row, at = logits_NV + position * size, tl.arange(0, BLOCK)
    target = tl.load(target_N + position)
    most, total, whole = -float("inf"), 0.0, 0.0
    for begin in range(0, size, BLOCK):
        real = begin + at < size
        x = tl.load(row + begin + at, mask=real, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(most, tl.max(x))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(x - higher))
        whole += tl.sum(tl.where(real, x, 0.0))
        most = higher
    log_sum = most + tl.log(total)
    nll = log_sum - tl.load(row + target).to(tl.float32)
    tl.store(nll_N + position, nll)
    tl.store(mean_N + position, log_sum - whole / size)
    if SLOPES:
        factor = tl.load(weights_N + position)
        if DFT:
            factor *= tl.exp(-nll)
        for begin in range(0, size, BLOCK):
            real = begin + at < size
            x = tl.load(row + begin + at, mask=real, other=-float("inf")).to(tl.float32)
            own = tl.where(begin + at == target, 1.0 - smoothing, 0.0)
            tl.store(row + begin + at, (tl.exp(x - log_sum) - smoothing / size - own) * factor, mask=real)


class GpuKernels:
    """The functions of kernels.py's Kernels that stand beside attention, over tensors of a GPU."""

    def norm(self, x: Tensor, weight_E: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """As Kernels.norm."""
        size, out = x.shape[-1], torch.empty_like(x)
        factor = x.new_empty(x.shape[:-1], dtype=torch.float32)
        _norm[(factor.numel(),)](x, weight_E, out, factor, size, epsilon, **_whole(size))
        return out, factor

    def norm_back(
        self, slope: Tensor, x: Tensor, weight_E: Tensor, factor: Tensor, with_weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As Kernels.norm_back."""
        size, tokens, out = x.shape[-1], factor.numel(), torch.empty_like(x)
        sums = x.new_empty(min(PROGRAMS, tokens), size, dtype=torch.float32)
        _norm_back[(len(sums),)](
            slope.contiguous(), x, weight_E, factor, out, sums, tokens, size, WEIGHED=with_weight, **_whole(size)
        )
        return out, sums.sum(0).to(x.dtype) if with_weight else None

    def turn(self, x: Tensor, cosine: Tensor, sine: Tensor, *, back: bool) -> Tensor:
        """As Kernels.turn."""
        _, heads, tokens, size = x.shape
        out, block = x.new_empty(tokens, heads, size), triton.next_power_of_2(size // 2)
        _turn[(tokens, heads)](
            x, x.stride(2), x.stride(1), cosine, sine, out, heads, size, BLOCK=block, BACK=back, num_warps=1
        )
        return out.transpose(0, 1)[None]

    def gated(self, gate: Tensor, held: Tensor) -> Tensor:
        """As Kernels.gated."""
        out, count = torch.empty_like(gate), gate.numel()
        _gated[(triton.cdiv(count, ELEMENTS),)](gate, held, out, count, BLOCK=ELEMENTS)
        return out

    def gated_back(self, slope: Tensor, gate: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """As Kernels.gated_back."""
        of_gate, of_held, count = torch.empty_like(gate), torch.empty_like(gate), gate.numel()
        _gated_back[(triton.cdiv(count, ELEMENTS),)](
            slope.contiguous(), gate, held, of_gate, of_held, count, BLOCK=ELEMENTS
        )
        return of_gate, of_held

    def likelihood(
        self, logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor | None, smoothing: float, dft: bool
    ) -> tuple[Tensor, Tensor]:
        """As Kernels.likelihood."""
        nll_N, mean_N = (logits_NV.new_empty(len(logits_NV), dtype=torch.float32) for _ in range(2))
        size, with_slopes = logits_NV.shape[1], weights_N is not None
        if len(nll_N):
            _likelihood[(len(nll_N),)](
                logits_NV, targets_N.contiguous(), weights_N, nll_N, mean_N, size, smoothing,
                BLOCK=min(PIECE, triton.next_power_of_2(size)), SLOPES=with_slopes, DFT=dft, num_warps=8,
            )  # fmt: skip
        return nll_N, mean_N


def _whole(size: int) -> dict[str, int]:
    """For programs that hold all numbers of a token: 32 threads for each 512 of them, up to a processor's 1,024."""
    block = triton.next_power_of_2(size)
    return {"BLOCK": block, "num_warps": min(32, max(1, block // 512))}
