"""The stage `tune`: prepared files and a base model → out/adapter or out/model, checked against what was trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import TrainingError
from tuneloop.core.machine import freed_memory_stays
from tuneloop.core.runs import Run
from tuneloop.forward.mixing import Mix, Mixture
from tuneloop.forward.objective import core_of
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.fit import Fit
from tuneloop.models.precision import matmul_rate, pick_dtype
from tuneloop.render.load import renderer_of
from tuneloop.render.template import Renderer
from tuneloop.track import console, metrics
from tuneloop.track.metrics import Tracking
from tuneloop.tune import canaries, decisions, expert_load, trunk, watch
from tuneloop.tune.budget import find_budget, given_budget, in_words
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.export import check, export, loss_of
from tuneloop.tune.loop import Job, train
from tuneloop.tune.memory import Need, explained
from tuneloop.tune.methods import FAMILY as METHODS
from tuneloop.tune.model import subject
from tuneloop.tune.rows import Rows, render_rows, sources_of, with_canaries
from tuneloop.tune.speed import Speedometer
from tuneloop.tune.terms import Terms
from tuneloop.tune.validation import PURPOSE, Scorer, validation

SUMMARY = "summary.json"
"""What was trained, for tables of several runs."""


@dataclass(frozen=True)
class Tuned:
    """What the stage leaves: the folder of the adapter or the model, and how training ended."""

    folder: Path
    adapter: bool
    progress: Progress


def tune(
    config: TuneConfig,
    model_config: ModelConfig,
    train_rows: Sequence[Example],
    val_rows: Sequence[Example],
    *,
    seed: int,
    run: Run,
    scorer: Scorer | None = None,
    mix: Mix | None = None,
    tracking: Tracking | None = None,
    prompts: Sequence[Example] = (),
) -> Tuned:
    """Tunes a model inside `run` (held by the caller); continues from the run's last checkpoint if there is one.

    `mix` says which rows an epoch is made of; without it, it is all of them once. `tracking` says who else gets the
    curves. `prompts` are the rows of `objective.keep`.
    """
    _seed_all(seed)
    accelerator = Accelerator()
    device = str(accelerator.device)
    base = find_base(model_config)
    renderer = renderer_of(base)
    rows = render_rows(renderer, train_rows, config, "render")
    rows, planted = with_canaries(renderer, rows, config, seed, mix)
    val_set = render_rows(renderer, choose(val_rows, config.validation.rows, PURPOSE), config, "render val")
    _write_drops(run, rows, val_set)
    dtype, why = pick_dtype(model_config.dtype, accelerator.device.type)
    made = subject(config, base, dtype, renderer, rows, prompts, seed=seed, device=device)
    objective = made.objective
    need = Need(config, core_of(made.model).config, 0, dtype, device, rows.supervised / rows.tokens, made.held_bytes)
    terms = Terms(config.objective, objective, rows.rendered, made.extras, seed, renderer.pad_id, 0)
    budget = _budget(config, terms, accelerator, run, need)
    longest = max(terms.costs)
    need = replace(need, tokens=max(min(budget, sum(terms.costs)), longest))
    memory = need.fit()
    job = Job(
        objective=objective,
        optimizer=made.optimizer(config),
        rows=rows.rendered,
        config=config,
        validate=validation(config, objective, renderer, val_set, val_rows, scorer, budget),
        accelerator=accelerator,
        folder=run.path,
        seed=seed,
        pad_id=renderer.pad_id,
        token_budget=budget,
        mixture=Mixture.of(mix, sources_of(rows, train_rows), seed) if mix else None,
        tracking=tracking,
        speedometer=Speedometer(memory.flops_per_token, matmul_rate(dtype, device), device),
        extras=made.extras,
    )
    if accelerator.is_main_process:
        decisions.say(job, base, renderer, rows, memory, f"{why}; {made.form}", train_rows)
    exposed = None
    with explained(need, longest), made.dropout():
        job = trunk.served(job, base, [*val_set.rendered, *val_set.rejected])
        with expert_load.shown(job, run), freed_memory_stays():
            progress = train(job)
        if config.validation.canaries:
            exposed = canaries.exposure(config.validation.canaries, planted, made.objective, renderer, budget)
    accelerator.wait_for_everyone()
    folder = run.out / ("adapter" if config.method.adapter else "model")
    if accelerator.is_main_process:
        _finish(job, base, renderer, folder, dtype)
        _summarise(run, folder, config, memory, dtype, progress, exposed)
    return Tuned(folder, config.method.adapter, progress)


def _finish(job: Job, base: Base, renderer: Renderer, folder: Path, dtype: torch.dtype) -> None:
    trained_loss = loss_of(job, job.objective)  # before the export, which takes the packed attention away
    job.config.method.finish(job.objective.model)
    export(job.objective.model, renderer, base, folder, job.config, job.seed)
    check(job, base, folder, dtype, trained_loss)


def _summarise(
    run: Run,
    folder: Path,
    config: TuneConfig,
    memory: Fit,
    dtype: torch.dtype,
    progress: Progress,
    exposed: dict[str, Any] | None,
) -> None:
    if exposed:
        console.decided("canaries", canaries.in_words(exposed))
    watched = watch.summary(metrics.read(run.path / "metrics.jsonl"))
    jsonl.write(run.out / SUMMARY, {
        "version": 1, "method": METHODS.name_of(config.method), "parameters": memory.parameters,
        "trained": memory.trainable, "dtype": str(dtype).removeprefix("torch."), "steps": progress.step,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "watch": watched | ({"canaries": exposed} if exposed else {}),
    })  # fmt: skip


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # libraries below us draw from the global state
    torch.manual_seed(seed)


def _write_drops(run: Run, train_set: Rows, val_set: Rows) -> None:
    jsonl.write_lines(run.out / "dropped.jsonl", [drop.to_json() for drop in (*train_set.drops, *val_set.drops)])
    if train_set.supervised == 0:
        raise TrainingError("no token of any training row is supervised; `tuneloop preview` shows the weights")


def _budget(
    config: TuneConfig,
    terms: Terms,
    accelerator: Accelerator,
    run: Run,
    need: Need,
) -> int:
    """Tokens per forward pass: as the recipe says, by device, or found once a run (a resumed one must add up alike)."""
    device = str(accelerator.device)
    if config.memory.token_budget != "find":
        return given_budget(config.memory, device)
    known = run.out / "token_budget.json"
    if accelerator.is_main_process and not known.is_file():
        with console.waiting("finding the size of micro-batches"):
            limit = need.tokens_that_fit() if device == "cpu" else None
            found, trials = find_budget(terms, config.batch_size, limit)
        console.decided("micro-batch", in_words(found, trials))
        jsonl.write(known, {"token_budget": found})
    accelerator.wait_for_everyone()
    return int(jsonl.read(known)["token_budget"])
