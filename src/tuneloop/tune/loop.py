"""The training loop, to be read top to bottom: plan → forward and backward → clip → step → log → validate → save.

Knows nothing of files of data, templates or methods; it gets rows, an Objective and a MasterOptimizer.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

from tuneloop.core.errors import TrainingError
from tuneloop.forward.mixing import Mixture
from tuneloop.forward.objective import Objective
from tuneloop.render.rendered import Rendered
from tuneloop.track import console
from tuneloop.track.metrics import Metrics, Tracking
from tuneloop.tune import checkpoint, watch
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.plan import Order
from tuneloop.tune.speed import Speedometer
from tuneloop.tune.terms import Extras, Terms
from tuneloop.tune.validation import Measured, Validate


@dataclass(frozen=True)
class Job:
    """What the loop works on; everything in it stays the same from the first step to the last, also over a resume."""

    objective: Objective
    optimizer: MasterOptimizer
    rows: Sequence[Rendered]
    config: TuneConfig
    validate: Validate | None
    accelerator: Accelerator
    folder: Path
    """The run folder: metrics.jsonl and out/checkpoints are written below it."""
    seed: int
    pad_id: int
    token_budget: int
    mixture: Mixture | None = None
    """Which rows an epoch has; None: all of them once."""
    tracking: Tracking | None = None
    """Where the curves go beside the run folder."""
    speedometer: Speedometer = field(default_factory=Speedometer)
    """Tokens a second, memory, and the share of the machine's rate where that was measured."""
    extras: Extras = field(default_factory=Extras)
    """What `tune.objective` needs beside the rows."""

    @cached_property
    def terms(self) -> Terms:
        objective = self.config.objective
        return Terms(objective, self.objective, self.rows, self.extras, self.seed, self.pad_id, self.token_budget)

    @property
    def steps_per_epoch(self) -> int:
        return self.config.steps_per_epoch(len(self.mixture or self.rows))

    @property
    def total_steps(self) -> int:
        return self.config.total_steps(len(self.mixture or self.rows))

    @property
    def validate_every(self) -> int:
        return self.config.validation.every or max(1, min(self.steps_per_epoch, self.total_steps) // 5)

    @property
    def save_every(self) -> int:
        return self.config.save_every or max(1, self.total_steps // 10)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "out" / "checkpoints"

    @cached_property
    def order(self) -> Order:
        """Which rows each step takes."""
        return Order(self.config, self.rows, self.seed, self.mixture)


def train(job: Job) -> Progress:
    """Trains to the end (or continues a checkpoint in the folder) and leaves the best or last weights in the model."""
    main = job.accelerator.is_main_process
    found = checkpoint.latest(job.checkpoints)
    progress = checkpoint.load(found, job.optimizer) if found else Progress()
    lengths = job.terms.tokens
    plan: list[list[int]] = []
    planned = -1
    stop = _Interrupt()
    with (
        Metrics(job.folder, progress.step, job.tracking) if main else nullcontext() as metrics,
        console.progress("tune", job.total_steps, completed=progress.step) as bar,
        stop.listening(),
    ):
        while progress.step < job.total_steps and not progress.stopped:
            epoch, index = divmod(progress.step, job.steps_per_epoch)
            if epoch != planned:
                plan, planned = job.order.epoch(epoch), epoch
            row = _step(job, plan[index], lengths, progress.step)
            progress = replace(progress, step=progress.step + 1)
            row |= job.speedometer.read(row["seconds"], row["tokens"], row["supervised_tokens"], row["computed_tokens"])
            row["epoch"] = round(progress.step / job.steps_per_epoch, 4)
            measured = None
            if job.validate and (progress.step % job.validate_every == 0 or progress.step == job.total_steps):
                bar.advance(0, note=f"{_note(row)}  validating")
                progress, measured = _validated(job, progress, row)
            if metrics:
                watch.write(metrics, row, measured, job.validate_every)
                bar.advance(note=_note(row))
            ending = progress.stopped or progress.step == job.total_steps
            if main and (ending or stop.asked or progress.step % job.save_every == 0):
                checkpoint.save(job.checkpoints, progress, job.optimizer)
            if stop.asked:
                raise KeyboardInterrupt
    job.accelerator.wait_for_everyone()  # the best weights are read by all and written by one
    if job.config.early_stopping and (job.checkpoints / "best").exists():
        checkpoint.load_best(job.checkpoints, job.optimizer)
    return progress


def _step(job: Job, picked: list[int], lengths: list[int], step: int) -> dict[str, Any]:
    """One optimizer step over the rows `picked`; returns its line of metrics.jsonl."""
    started = time.perf_counter()
    terms, scale, ranks = job.terms, job.optimizer.loss_scale, job.accelerator
    job.objective.train()
    zero = torch.zeros((), dtype=torch.float64, device=job.accelerator.device)
    sums = dict.fromkeys(terms.columns, zero)
    for loss, columns in terms.parts(picked, step, ranks.process_index, ranks.num_processes, scale):
        loss.backward()
        job.optimizer.accumulate()
        for name, value in columns.items():
            sums[name] = sums[name] + value.double()
    sums = _over_ranks(job, sums)
    minimised, computed = sums.pop("objective"), int(sums.pop("computed_tokens"))
    norm = job.optimizer.gradient_norm()
    factor = job.config.schedule.factor(step, job.total_steps)
    if math.isfinite(minimised) and math.isfinite(float(norm)):
        job.optimizer.step(factor, job.config.optimizer.clip, norm)
    elif not (math.isfinite(minimised) and job.optimizer.loss_scale > 1 and job.optimizer.back_off()):
        raise TrainingError(_not_finite(job, picked, step, minimised, float(norm)))
    return {
        "step": step + 1,
        "epoch": 0.0,
        "seconds": round(time.perf_counter() - started, 4),
        **sums,
        **({"objective": minimised} if job.config.objective.differs else {}),
        "learning_rate": job.config.learning_rate * factor,
        "gradient_norm": float(norm),
        "tokens": sum(lengths[i] for i in picked),
        "supervised_tokens": sum(job.rows[i].supervised for i in picked),
        "computed_tokens": computed,
        **(terms.extras.balance.logged(ranks.num_processes) if terms.extras.balance else {}),
    }


def _note(row: dict[str, Any]) -> str:
    """The bar's note; a validation's value stays until the next one."""
    note = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tok/s"
    return f"{note}  val {row['val_loss']:.3f}" if "val_loss" in row else note


def _over_ranks(job: Job, sums: dict[str, torch.Tensor]) -> dict[str, float]:
    """Sums columns and master gradients over all processes; they hold sums over disjoint rows, so the sum is exact."""
    values = torch.stack(list(sums.values()))
    if job.accelerator.num_processes > 1:
        masters = list(job.optimizer.masters.values())
        used = torch.tensor([float(master.grad is not None) for master in masters], device=values.device)
        torch.distributed.all_reduce(used)
        for master, ranks in zip(masters, used.tolist(), strict=True):
            if ranks == 0:  # as on a single rank, what no row uses gets no gradient, and so no weight decay
                continue
            if master.grad is None:  # this rank has no row in this step
                master.grad = torch.zeros_like(master)
            torch.distributed.all_reduce(master.grad)
        torch.distributed.all_reduce(values)
    return dict(zip(sums, values.tolist(), strict=True))


def _validated(job: Job, progress: Progress, row: dict[str, Any]) -> tuple[Progress, Measured]:
    """Adds the validation's values to the step's row, keeps the best weights, decides whether to stop."""
    assert job.validate is not None
    started = time.perf_counter()
    measured = job.validate()
    row["validation_seconds"] = round(time.perf_counter() - started, 4)
    values = measured.values
    row.update({f"val_{name}": value for name, (value, _) in values.items()})
    rule = job.config.early_stopping
    name = rule.metric if rule else "loss"
    if name not in values:
        raise TrainingError(f"early_stopping.metric: '{name}' is not measured; measured are: {', '.join(values)}")
    value, lower = values[name]
    delta = rule.min_delta if rule else 0.0
    gain = math.inf if progress.best is None else (progress.best - value if lower else value - progress.best)
    better = math.isfinite(value) and gain > delta
    if better:
        progress = replace(progress, best=value, best_step=progress.step, stale=0)
        if rule and job.accelerator.is_main_process:
            checkpoint.save_best(job.checkpoints, progress, job.optimizer)
    else:
        progress = replace(progress, stale=progress.stale + 1)
    if rule and progress.stale >= rule.patience:
        console.say(f"early stopping: {name} has not improved since step {progress.best_step}")
        progress = replace(progress, stopped=True)
    return progress, measured


def _not_finite(job: Job, picked: list[int], step: int, loss: float, norm: float) -> str:
    ids = ", ".join(job.rows[i].example for i in picked[:8]) + (", …" if len(picked) > 8 else "")
    return (
        f"step {step + 1}: loss {loss}, gradient norm {norm}: training stopped before the weights were touched. "
        f"Rows of this step: {ids}. Try a lower tune.learning_rate, more warm-up, or model.dtype: fp32."
    )


class _Interrupt:
    """First ^C: finish the step and save; second ^C: at once (the last checkpoint stays)."""

    def __init__(self) -> None:
        self.asked = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        console.say("stopping after this step; ^C again stops at once")

    @contextmanager
    def listening(self) -> Iterator[None]:
        try:
            before = signal.signal(signal.SIGINT, self._handle)
        except ValueError:  # not the main thread: ^C is the caller's affair
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
