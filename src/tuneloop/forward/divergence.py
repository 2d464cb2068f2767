"""Divergence between the next-token distributions of two models, from their hidden states, chunk by chunk.

The full logits [N, V] never exist at once. Shapes: N positions, D hidden size (each model's own), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tuneloop.forward.loss import chunks, head_width

Direction = Literal["forward", "reverse", "js"]


@dataclass(frozen=True)
class Side:
    """One model's share: hidden states [N, D], its head, and what it does to its logits after the head, if anything."""

    hidden_ND: Tensor
    head: nn.Module
    finish: Callable[[Tensor], Tensor] | None = None

    def log_p(self, hidden_CD: Tensor, width: int, temperature: float) -> Tensor:
        """log softmax(logits / temperature) [chunk, width] of some of the states, in float32 at least."""
        logits = self.head(hidden_CD)
        logits = logits if self.finish is None else self.finish(logits)
        wide = torch.promote_types(logits.dtype, torch.float32)
        return F.log_softmax(logits[:, :width].to(wide) / temperature, dim=-1)


def chunked_divergence(
    teacher: Side,
    student: Side,
    weights_N: Tensor,
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
) -> tuple[Tensor, Tensor]:
    """(sum of weight · divergence, divergence_N) in nats; gradients go to the student alone.

    forward: KL(teacher ‖ student), which wants all that the teacher does; reverse: KL(student ‖ teacher), which avoids
    what it does not; js: the mean of both against their average, at most log 2 (Lin 1991). Heads of unequal width are
    compared on the rows that both have: what is beyond a shared vocabulary is padding.
    """
    weights_N = weights_N.to(torch.promote_types(student.hidden_ND.dtype, torch.float32))
    trained = [parameter for parameter in student.head.parameters() if parameter.requires_grad]
    form = _Form(teacher, student, temperature, direction)
    return _Divergence.apply(form, weights_N, student.hidden_ND, *trained)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Form:
    teacher: Side
    student: Side
    temperature: float
    direction: Direction


class _Divergence(torch.autograd.Function):
    """Gradients are computed chunk by chunk in the forward pass, as in loss._ChunkedNLL, but by autograd itself: so any
    head will do, and logits are made once."""

    @staticmethod
    def forward(
        ctx: Any, form: _Form, weights_N: Tensor, hidden_ND: Tensor, *trained: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        needed = any(ctx.needs_input_grad[2:])
        teacher, student, temperature = form.teacher, form.student, form.temperature
        width = min(head_width(teacher.head), head_width(student.head))
        sums = [torch.zeros_like(leaf, dtype=weights_N.dtype) for leaf in trained]
        grad_hidden = torch.empty_like(hidden_ND) if needed else None
        out_N = torch.empty_like(weights_N)
        for part in chunks(hidden_ND, width, bool(trained)):
            with torch.no_grad():
                teacher_CV = teacher.log_p(teacher.hidden_ND[part], width, temperature)
            with torch.set_grad_enabled(needed):
                hidden_CD = hidden_ND[part].detach().requires_grad_(needed)
                found = _divergence(teacher_CV, student.log_p(hidden_CD, width, temperature), form.direction)
                weighted = (found * weights_N[part]).sum()
            out_N[part] = found.detach()
            if grad_hidden is not None:
                slopes = torch.autograd.grad(weighted, [hidden_CD, *trained])
                grad_hidden[part] = slopes[0]
                for total, slope in zip(sums, slopes[1:], strict=True):
                    total += slope
        kept = [total.to(parameter.dtype) for total, parameter in zip(sums, trained, strict=True)]
        ctx.save_for_backward(grad_hidden, *kept)
        ctx.mark_non_differentiable(out_N)
        return (out_N * weights_N).sum(), out_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scaled = [None if saved is None else saved * grads[0].to(saved.dtype) for saved in ctx.saved_tensors]
        return (None, None, *scaled)


def _divergence(teacher_CV: Tensor, student_CV: Tensor, direction: Direction) -> Tensor:
    if direction == "forward":
        return _kl(teacher_CV, student_CV)
    if direction == "reverse":
        return _kl(student_CV, teacher_CV)
    middle_CV = torch.logaddexp(teacher_CV, student_CV) - math.log(2)
    return (_kl(teacher_CV, middle_CV) + _kl(student_CV, middle_CV)) / 2


def _kl(p_CV: Tensor, q_CV: Tensor) -> Tensor:
    """KL(p ‖ q) [chunk] of log-probabilities."""
    return (p_CV.exp() * (p_CV - q_CV)).sum(-1)
