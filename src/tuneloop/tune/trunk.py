"""Whether frozen lower layers are computed once for all epochs, and where the file of what they give lies.

Knows the plan of the run; how a file stands in for layers is `forward.trunk`'s.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate.utils import broadcast_object_list

from tuneloop.core import digest, jsonl
from tuneloop.core.errors import TrainingError
from tuneloop.forward import trunk as frozen
from tuneloop.forward.objective import TOLERANCE, core_of, nll
from tuneloop.forward.trunk import Trunk
from tuneloop.models import cache
from tuneloop.models.find import Base
from tuneloop.models.fit import EFFICIENCY, GIB, available_memory, count_parameters
from tuneloop.models.precision import matmul_rate
from tuneloop.render.rendered import Rendered
from tuneloop.track import console
from tuneloop.tune.loop import Job

FILE = "hidden.bin"
PROBED, HEAD = 4, 96
"""Rows on which the trunk is found and checked, and how many tokens of each are enough to find it."""
WORTH, SECONDS = 0.2, 1.0
"""The file must save this share of the trunk's work, and so many seconds."""
DISK, MEMORY = 0.4e9, 4e9
"""Bytes a second, rough: to and from a disk, and from a file that memory holds."""


@dataclass(frozen=True)
class Uses:
    """The rows that a run computes, each once, and the tokens of all its passes over them."""

    rows: list[Rendered]
    tokens: int

    @classmethod
    def of(cls, job: Job, validated: Sequence[Rendered]) -> Uses:
        """Rows that are drawn, with their rejected answers; rows that are measured; rows of `keep`."""
        steps = [step for epoch in range(-(-job.total_steps // job.steps_per_epoch)) for step in job.order.epoch(epoch)]
        times = np.bincount(np.concatenate(steps[: job.total_steps]), minlength=len(job.rows))
        drawn, rejected, prompts = np.flatnonzero(times).tolist(), job.extras.rejected, job.extras.prompts
        rows = [*(job.rows[i] for i in drawn), *(rejected[i] for i in drawn if rejected), *validated, *prompts]
        tokens = sum(int(times[i]) * job.terms.tokens[i] for i in drawn)
        tokens += job.total_steps // job.validate_every * sum(map(len, validated)) if job.validate else 0
        if job.config.objective.keep:
            tokens += job.total_steps * job.config.objective.keep.rows * sum(map(len, prompts)) // len(prompts)
        return cls(list({frozen.key(row): row for row in rows}.values()), tokens)


def served(job: Job, base: Base, validated: Sequence[Rendered]) -> Job:
    """The job with its frozen lower layers computed once, where there are such and it saves time; said either way.

    Raises TrainingError where the recipe asks for it and it cannot be. The first process decides for all, and the first
    time for a run: one that is continued must round as it did before.
    """
    record = job.folder / "out" / "frozen_layers.json"
    asked = jsonl.read(record)["kept"] if record.is_file() else job.config.memory.trunk_cache
    if asked is False:
        return job
    heads = [replace(row, ids=row.ids[:HEAD], weights=row.weights[:HEAD]) for row in job.rows[:PROBED]]
    trunk, why = frozen.find(job.objective, heads, pad_id=job.pad_id, neftune=job.config.objective.neftune)
    if trunk is None and asked:
        raise TrainingError(
            f"tune.memory.trunk_cache: no lower layers are frozen whose results could be kept: {why}. Leave it out, or "
            "train upper layers alone: method freeze, or lora with `layers`"
        )
    if trunk is None:
        return job
    uses = Uses.of(job, validated)
    trunk.arrange(job.objective, uses.rows, job.token_budget)
    told: list[str | None] = [None, None]
    if job.accelerator.is_main_process:
        told = list(_checked_file(job, base, trunk, uses))
        if told[0] or not asked:
            jsonl.write(record, {"kept": told[0] is not None})
    if job.accelerator.num_processes > 1:
        broadcast_object_list(told)
    path, why_not = told
    if path is None and asked:
        raise TrainingError(f"tune.memory.trunk_cache: layers {_below(trunk)} are frozen, but {why_not}")
    if path is None and job.accelerator.is_main_process:
        console.decided("frozen", f"layers {_below(trunk)} compute the same in each epoch, but {why_not}")
    if path is None:
        return job
    trunk.open(Path(path))
    job.objective.trunk = trunk
    return _of_the_rest(job, trunk)


def _checked_file(job: Job, base: Base, trunk: Trunk, uses: Uses) -> tuple[str | None, str]:
    """(the file of what the trunk gives for the rows, or None; why there is none)."""
    target = cache.root() / "trunks" / _name(job, base, trunk, uses.rows)
    file, size = target / FILE, trunk.tokens * trunk.bytes_a_token
    known = file.is_file() and file.stat().st_size == size
    if known:
        os.utime(target)
        _say(trunk, f"what they give is known from an earlier run, {size / GIB:.3g} GiB in {target}")
    elif why_not := _refused(job, trunk, uses, size, target.parent) or _written(job, trunk, size, target):
        return None, why_not
    gap = _gap(job, trunk, uses.rows, file)
    if gap <= TOLERANCE[core_of(job.objective.model).dtype]:
        return str(file), ""
    shutil.rmtree(target)
    if known:  # it was damaged
        return _checked_file(job, base, trunk, uses)
    return None, f"with that kept, the loss of real rows differs by {gap:.2g} nats"


def _refused(job: Job, trunk: Trunk, uses: Uses, size: int, folder: Path) -> str:
    """Why no file is to be written, or nothing; then there is room for it."""
    memory = job.config.memory
    limit = int(memory.trunk_gib * GIB)
    if size > limit:
        return f"keeping that takes {size / GIB:.3g} GiB, and tune.memory.trunk_gib is {memory.trunk_gib:g}"
    if not memory.trunk_cache and not _pays(job, trunk, uses, size):
        return f"keeping that saves too little ({uses.tokens / trunk.tokens:.1f} passes over each row)"
    folder.mkdir(parents=True, exist_ok=True)
    cache.make_room(folder, limit - size)
    free = shutil.disk_usage(folder).free
    if size > free / 2:
        return f"keeping that takes {size / GIB:.3g} GiB, more than half of the {free / GIB:.1f} GiB free in {folder}"
    return ""


def _written(job: Job, trunk: Trunk, size: int, target: Path) -> str:
    """Writes the file, whole or not at all; why that could not be, or nothing."""
    _say(trunk, f"what they give is computed once, {size / GIB:.3g} GiB in {target}, mapped and not held in memory")
    try:
        with cache.building(target) as new, console.progress("frozen layers", len(trunk.rows)) as bar:
            trunk.fill(job.objective, new / FILE, job.pad_id, bar.advance)
    except OSError as error:
        return f"the file of it could not be written ({error})"
    return ""


def _say(trunk: Trunk, text: str) -> None:
    top = len(trunk.layers) - trunk.border
    console.decided("frozen", f"layers {_below(trunk)}: {text}; steps run {top} of {len(trunk.layers)} layers")


def _name(job: Job, base: Base, trunk: Trunk, rows: Sequence[Rendered]) -> str:
    """All that the file follows from, as a digest. The fingerprint has what the base's has not: kernels, threads."""
    tokens = digest.of_texts([frozen.key(row).hex() for row in rows])
    form = [job.objective.packed, job.objective.share, job.token_budget]
    facts = [base.digest, trunk.border, str(trunk.dtype), trunk.fingerprint, form, tokens]
    return digest.short(digest.of_value(facts), 32)


def _pays(job: Job, trunk: Trunk, uses: Uses, size: int) -> bool:
    """By the operations saved, at the measured rate of matrix products, against computing once, writing and reading."""
    dtype = core_of(job.objective.model).dtype
    rate = EFFICIENCY * matmul_rate(dtype, str(job.accelerator.device))
    a_token = 2 * _weights_below(job, trunk) / rate
    reading = uses.tokens * trunk.bytes_a_token / (MEMORY if size < available_memory() / 2 else DISK)
    without = uses.tokens * a_token
    saved = without - trunk.tokens * a_token - size / DISK - reading
    return saved > max(WORTH * without, SECONDS)


def _weights_below(job: Job, trunk: Trunk) -> int:
    """Weights of the frozen layers that a token meets; all layers are taken for equal."""
    core = core_of(job.objective.model)
    head = core.get_output_embeddings()
    outside = sum(p.numel() for p in head.parameters()) if head is not None else 0
    return (count_parameters(core.config)[1] - outside) * trunk.border // len(trunk.layers)


def _gap(job: Job, trunk: Trunk, rows: Sequence[Rendered], file: Path) -> float:
    """Mean difference of the losses of a few rows, from all over the file, by it and through all layers."""
    places = dict.fromkeys(np.linspace(0, len(rows) - 1, PROBED).astype(int).tolist())
    sample = [replace(rows[i], weights=np.ones_like(rows[i].weights)) for i in places]
    trunk.open(file)

    def losses() -> np.ndarray:
        scores = nll(job.objective, sample, pad_id=job.pad_id, budget=job.token_budget)
        return np.array([total / max(weight, 1) for total, weight in scores])  # a row of one token has no weight

    whole = losses()
    job.objective.trunk = trunk
    by_file = losses()
    job.objective.trunk = None
    return float(np.abs(by_file - whole).mean())


def _of_the_rest(job: Job, trunk: Trunk) -> Job:
    """The job as it is for what still runs: its operations, and the routers that can be watched."""
    extras, meter = job.extras, job.speedometer
    if extras.balance:
        routing = extras.balance.routing
        routing.leave_out(trunk.below())
        if len(routing.routers) < routing.averaged and job.accelerator.is_main_process:
            left = f"{len(routing.routers)} of {routing.averaged} routers are watched; the others are frozen, and their"
            console.decided("experts", f"{left} part of the load-balancing loss is constant and left out")
        if not routing.routers:
            extras = replace(extras, balance=None)
    spared = 4 * _weights_below(job, trunk)  # as the estimate counts frozen layers: forward, and backward through them
    meter = replace(meter, flops_per_token=max(0, meter.flops_per_token - spared))
    return replace(job, extras=extras, speedometer=meter)


def _below(trunk: Trunk) -> str:
    return f"0–{trunk.border - 1}" if trunk.border > 1 else "0"
