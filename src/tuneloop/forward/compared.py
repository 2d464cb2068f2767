"""Own kernels beside PyTorch in float64 on small examples, before they are used; on the device that they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tuneloop.forward.layout import Rows

if TYPE_CHECKING:
    from tuneloop.forward.gpu import GpuKernels
    from tuneloop.forward.kernels import Kernels

Pairs = Iterator[tuple[Tensor, Tensor]]
"""What was computed, and what PyTorch says."""


def gap(pairs: Pairs) -> float:
    """The largest difference, as a share of the results' size. Pairs are computed here, with gradients in any case."""
    with torch.inference_mode(False), torch.enable_grad():
        return max(float((ours.double() - own).norm() / own.norm()) for ours, own in pairs)


def attended(found: Kernels, dtype: torch.dtype) -> Pairs:
    """Two rows that share their first tokens, longer than a block of queries, in a window."""
    some = _chance(dtype, "cpu")
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


def others(found: Kernels | GpuKernels, dtype: torch.dtype, device: str = "cpu") -> Pairs:
    """Norms, gates, turns by place and the loss, there and back."""
    some = _chance(dtype, device)
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
    logits, targets, weights = x.clone(), torch.arange(7, device=device) * 5, some(7).float()
    exact = x.double().requires_grad_()
    log_p = exact.log_softmax(-1)
    nll_N, mean_N = -log_p.gather(-1, targets[:, None])[:, 0], -log_p.mean(-1)
    slopes = torch.autograd.grad((weights * nll_N.detach().neg().exp() * torch.lerp(nll_N, mean_N, 0.1)).sum(), exact)
    ours = found.likelihood(logits, targets, weights, 0.1, True)
    yield from zip([*ours, logits], [nll_N.detach(), mean_N.detach(), *slopes], strict=True)


def _chance(dtype: torch.dtype, device: str) -> Callable[..., Tensor]:
    """Makes random tensors of given shapes, always the same."""
    chance = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=chance).to(device, dtype)


def _with_gradients(out: Tensor, inputs: Sequence[Tensor], slope: Tensor) -> list[Tensor]:
    return [out.detach(), *torch.autograd.grad(out, inputs, slope.to(out.dtype))]
