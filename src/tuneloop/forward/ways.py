"""Which way to attend within rows is fastest for a model on its GPU: all are tried on its own rows, and compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuneloop.forward import attention
from tuneloop.forward.batch import Batch, Row
from tuneloop.forward.objective import Objective, core_of

TITLES = {
    attention.NAME: "padded blocks",
    f"{attention.NAME}_varlen": "FlashAttention of many rows",
    f"{attention.NAME}_flex": "FlexAttention",
}
APART = {torch.bfloat16: 0.3, torch.float16: 0.1, torch.float32: 1e-3, torch.float64: 1e-6}
"""How far gradients may be from those of padded blocks, as a share of their size. With SmolLM2 (30 layers) rounding
made 0.07 of it in bf16 and 4e-6 in float32, rows that see one another 0.99."""
WORTH = 1.03
"""A later way must be this much faster."""
ROWS = 256
"""Of which the micro-batch is taken that is timed, one of middling length."""
RUNS = 3


@dataclass(frozen=True)
class Trial:
    """A way, and its seconds for a batch there and back, or why it is none."""

    way: str
    seconds: float = float("inf")
    why: str = ""

    def __str__(self) -> str:
        return f"{TITLES[self.way]} {self.why or f'{1e3 * self.seconds:,.1f} ms'}"


def fastest(objective: Objective, rows: Sequence[Row], pad_id: int, budget: int) -> str:
    """Leaves a packed model on a GPU with its fastest way, and says how all did; elsewhere there is but one."""
    if not objective.packed or core_of(objective.model).device.type == "cpu":
        return ""
    batches = objective.micro_batches(rows, range(min(len(rows), ROWS)), budget)
    picked = batches[len(batches) // 2]
    parts = dict.fromkeys(tuple(picked[: max(1, len(picked) // share)]) for share in (1, 2, len(picked)))
    return choose(objective, [objective.batch([rows[row] for row in part], pad_id) for part in parts])


def choose(objective: Objective, batches: Sequence[Batch]) -> str:
    """The same, by batches of different sizes, as kernels are compiled for sizes; the first of them is timed.

    Leaves weights, gradients and the mode of training as they were.
    """
    core, training = core_of(objective.model), objective.training
    objective.train()  # so that activations are recomputed where they will be
    trials: list[Trial] = []
    references: list[Tensor] = []
    for way in attention.WAYS:
        attention.use_packed(core, way)
        try:
            slopes = [_slope(objective, batch).float() for batch in batches]
            seconds = min(_seconds(objective, batches[0]) for _ in range(RUNS))
        except Exception as error:  # noqa: BLE001  what kernels and compilers for any GPU raise has no common class
            trials.append(Trial(way, why=f"failed ({type(error).__name__}: {str(error).partition(chr(10))[0][:120]})"))
            continue
        references = references or slopes
        pairs = zip(slopes, references, strict=True)
        apart = max(float((slope - reference).norm() / reference.norm()) for slope, reference in pairs)
        good = apart <= APART[core.dtype]
        trials.append(Trial(way, seconds) if good else Trial(way, why=f"differs by {apart:.2g}"))
    chosen = trials[0]
    for trial in trials[1:]:
        chosen = trial if trial.seconds * WORTH < chosen.seconds else chosen
    attention.use_packed(core, chosen.way)
    objective.train(training)
    rest = ", ".join(str(trial) for trial in trials if trial is not chosen)
    return f"attention by {chosen} for {batches[0].ids.numel():,} tokens there and back ({rest})"


def _seconds(objective: Objective, batch: Batch) -> float:
    wait_for(batch.ids.device)
    started = time.perf_counter()
    _slope(objective, batch)
    wait_for(batch.ids.device)
    return time.perf_counter() - started


def _slope(objective: Objective, batch: Batch) -> Tensor:
    """Not by the weights, whose gradients may need more memory than there is before they are shared out. What is drawn
    at random is the same each time."""
    seen: list[Tensor] = []

    def remember(module: Any, given: Any, out: Tensor) -> Tensor:
        seen.append(out.detach().requires_grad_())
        return seen[-1]

    device = batch.ids.device
    handle = core_of(objective.model).get_input_embeddings().register_forward_hook(remember)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            return torch.autograd.grad(objective(batch)[0], seen[-1])[0]
    finally:
        handle.remove()


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
