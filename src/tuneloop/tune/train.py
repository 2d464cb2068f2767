"""The stage `tune`: prepared files and a base model → out/adapter or out/model, checked against what was trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tuneloop.core import jsonl
from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError, TrainingError
from tuneloop.core.runs import Run
from tuneloop.forward import objective as forward
from tuneloop.forward.batch import collate
from tuneloop.forward.dropout import Dropouts
from tuneloop.forward.mixing import Mix, Mixture
from tuneloop.forward.objective import Objective, core_of
from tuneloop.forward.plan import token_budget
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.fit import Fit
from tuneloop.models.load import load_model
from tuneloop.models.precision import matmul_rate, pick_dtype
from tuneloop.render.load import renderer_of
from tuneloop.render.preview import preview_rows, to_rich
from tuneloop.render.rendered import Rendered
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.track.metrics import Tracking
from tuneloop.tune import expert_load, moe
from tuneloop.tune.budget import find_budget, in_words
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.export import check, export, loss_of
from tuneloop.tune.loop import Job, Validate, train
from tuneloop.tune.memory import Need, explained
from tuneloop.tune.methods import FAMILY as METHODS
from tuneloop.tune.methods import Setting
from tuneloop.tune.model import applied, continued
from tuneloop.tune.moe import Balance, balance_of
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.pairs import preferences
from tuneloop.tune.rows import Rows, losses_in_words, render_rows, sources_of
from tuneloop.tune.speed import Speedometer
from tuneloop.tune.teachers import Kept, base_teacher, distill_teacher
from tuneloop.tune.terms import Extras

SUMMARY = "summary.json"
"""What was trained, for tables of several runs."""
Scorer = Callable[[nn.Module, Renderer, Sequence[Example]], dict[str, tuple[float, bool]]]
"""Generates answers and scores them: name → (value, lower is better). Given by the flow, which knows `evaluate`."""
PURPOSE = "validate"
"""Of the choice of validation rows. The rows to answer are among those whose loss is measured."""


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
    base = find_base(model_config)
    renderer = renderer_of(base)
    train_set = render_rows(renderer, train_rows, config, "render")
    val_set = render_rows(renderer, choose(val_rows, config.validation.rows, PURPOSE), config, "render val")
    _write_drops(run, train_set, val_set)
    mixture = Mixture.of(mix, sources_of(train_set, train_rows), seed) if mix else None

    dtype, why = pick_dtype(model_config.dtype, str(accelerator.device.type))
    quantization = config.method.quantization
    model = load_model(base, dtype, seed=seed, device=str(accelerator.device), quantization=quantization)
    dropouts = Dropouts.of(model) if config.objective.dropout is not None else None
    kept = Kept.of(model, renderer, prompts, config) if config.objective.keep else None
    trained = continued(config, model, base) if base.adapter else applied(config, model)
    if config.memory.gradient_checkpointing:
        trained.enable_input_require_grads()  # frozen embeddings give checkpointed blocks no input to differentiate
        core_of(trained).activation_checkpointing_enable({"use_reentrant": False})
    objective, form = forward.prepare(trained, train_set.rendered, renderer.pad_id)
    longest = max(map(len, train_set.rendered))
    need = Need(
        config, core_of(trained).config, 0, dtype, str(accelerator.device), train_set.supervised / train_set.tokens
    )
    budget = _budget(config, objective, train_set.rendered, renderer.pad_id, accelerator, run, need)
    need = replace(need, tokens=max(min(budget, train_set.tokens), longest))
    memory = need.fit()
    named = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    if not base.adapter:
        gradients = partial(_gradients, objective, train_set.rendered, renderer.pad_id)
        config.method.initialise(trained, Setting(renderer.tokenizer, seed, gradients))
    optimizer = MasterOptimizer(named, config.optimizer, config.learning_rate, config.method.rates(named))
    balance = balance_of(config.moe, trained, core_of(trained).config)
    job = Job(
        objective=objective,
        optimizer=optimizer,
        rows=train_set.rendered,
        config=config,
        validate=_validation(config, objective, renderer, val_set, val_rows, scorer, trained, budget),
        accelerator=accelerator,
        folder=run.path,
        seed=seed,
        pad_id=renderer.pad_id,
        token_budget=budget,
        mixture=mixture,
        tracking=tracking,
        speedometer=Speedometer(memory.flops_per_token, matmul_rate(dtype, need.device), need.device),
        extras=_extras(config, objective, renderer, train_set, base, kept, seed, balance),
    )
    load = partial(expert_load.measure, objective, train_set.rendered, renderer.pad_id, budget) if balance else None
    names, before_LE = load() if load else ([], None)
    if accelerator.is_main_process:
        _say_decisions(job, base, renderer, train_set, memory, f"{why}; {form}", train_rows)
    with explained(need, longest), dropouts.set_to(config.objective.dropout or 0.0) if dropouts else nullcontext():
        progress = train(job)
    accelerator.wait_for_everyone()
    if load and before_LE is not None and accelerator.is_main_process:
        expert_load.write(run.out, run.path.name, names, before_LE, load()[1])
    folder = run.out / ("adapter" if config.method.adapter else "model")
    if accelerator.is_main_process:
        trained_loss = loss_of(job, objective)  # before the export, which takes the packed attention away
        config.method.finish(trained)
        export(trained, renderer, base, folder, config, seed)
        check(job, base, folder, dtype, trained_loss)
        jsonl.write(run.out / SUMMARY, {
            "version": 1, "method": METHODS.name_of(config.method), "parameters": memory.parameters,
            "trained": memory.trainable, "dtype": str(dtype).removeprefix("torch."), "steps": progress.step,
            "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        })  # fmt: skip
    return Tuned(folder, config.method.adapter, progress)


def _extras(
    config: TuneConfig,
    objective: Objective,
    renderer: Renderer,
    rows: Rows,
    base: Base,
    kept: Kept | None,
    seed: int,
    balance: Balance | None,
) -> Extras:
    """What the terms of `tune.objective` need beside the rows."""
    teacher = None
    if config.objective.distill:
        core = core_of(objective.model)
        teacher = distill_teacher(
            config.objective.distill, renderer, rows.rendered, core.dtype, device=str(core.device)
        )
    before = None
    if kept:
        before, how = base_teacher(objective, base, kept, renderer.pad_id, adapter=config.method.adapter, seed=seed)
        console.decided("keep", f"{len(kept.rows):,} rows are compared with the base; {how}")
    return Extras(rows.rejected, teacher, before, kept.rows if kept else (), balance)


def _gradients(objective: Objective, rows: Sequence[Rendered], pad_id: int, count: int) -> Iterator[dict[str, Tensor]]:
    """The gradient of the loss of each of `count` rows, spread evenly over all."""
    device = next(objective.parameters()).device
    for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int).tolist():
        objective.zero_grad(set_to_none=True)
        loss, _ = objective(collate([rows[place]], packed=objective.packed, pad_id=pad_id).to(device))
        loss.backward()
        yield {name: p.grad for name, p in objective.model.named_parameters() if p.grad is not None}
    objective.zero_grad(set_to_none=True)


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # libraries below us draw from the global state
    torch.manual_seed(seed)


def _write_drops(run: Run, train_set: Rows, val_set: Rows) -> None:
    jsonl.write_lines(run.out / "dropped.jsonl", [drop.to_json() for drop in (*train_set.drops, *val_set.drops)])
    if train_set.supervised == 0:
        raise TrainingError("no token of any training row is supervised; `tuneloop preview` shows the weights")


def _validation(
    config: TuneConfig,
    objective: Objective,
    renderer: Renderer,
    val_set: Rows,
    val_rows: Sequence[Example],
    scorer: Scorer | None,
    model: nn.Module,
    budget: int,
) -> Validate | None:
    """What is measured on the validation rows: the loss, and metrics on generated answers where the recipe asks."""
    if not val_set.rendered:
        if config.early_stopping:
            raise DataError("early_stopping needs validation rows: give data.val or a share in data.split.val")
        return None
    sample = choose(val_rows, config.validation.generate, PURPOSE)

    def validate() -> dict[str, tuple[float, bool]]:
        loss = forward.mean_nll(objective, val_set.rendered, pad_id=renderer.pad_id, budget=budget)
        values = {"loss": (loss, True)}
        if val_set.rejected:
            values |= preferences(objective, val_set.rendered, val_set.rejected, pad_id=renderer.pad_id, budget=budget)
        if scorer and sample:
            values |= scorer(model, renderer, sample)
        return values

    return validate


def _budget(
    config: TuneConfig,
    objective: Objective,
    rows: Sequence[Rendered],
    pad_id: int,
    accelerator: Accelerator,
    run: Run,
    need: Need,
) -> int:
    """Tokens per forward pass: as the recipe says, by device, or found once a run (a resumed one must add up alike)."""
    given, device = config.memory.token_budget, str(accelerator.device)
    if given != "find":
        return given or token_budget(device)
    known = run.out / "token_budget.json"
    if accelerator.is_main_process and not known.is_file():
        with console.waiting("finding the size of micro-batches"):
            limit = need.tokens_that_fit() if device == "cpu" else None
            found, trials = find_budget(objective, rows, config.batch_size, pad_id, limit)
        console.decided("micro-batch", in_words(found, trials))
        jsonl.write(known, {"token_budget": found})
    accelerator.wait_for_everyone()
    return int(jsonl.read(known)["token_budget"])


def _say_decisions(
    job: Job, base: Base, renderer: Renderer, rows: Rows, memory: Fit, form: str, examples: Sequence[Example]
) -> None:
    """Everything decided for the user, said once: rows, precision, batch, memory, one masked sample."""
    config = job.config
    trainable = sum(p.numel() for p in job.optimizer.model_weights.values())
    decided = console.decided
    held = f", the base held in {config.method.quantization}" if config.method.quantization else ""
    decided("base", f"{base.name}: {memory.parameters / 1e6:,.1f} M parameters, {trainable / 1e6:,.2f} M trained{held}")
    for decision in (*base.decisions, *renderer.decisions):
        decided("decided", decision)
    decided("rows", losses_in_words(rows, len(examples)))
    paired = sum(bool(example.rejected) for example in examples)
    if paired and not rows.rejected:
        decided("decided", f"{paired} rows have a rejected answer, which only tune.objective.orpo learns from")
    if job.mixture:
        decided("epoch", job.mixture.in_words([row.supervised for row in job.rows]))
    first = [job.rows[i] for step in job.plan(0) for i in step]
    tokens, supervised = sum(map(len, first)), sum(row.supervised for row in first)
    about = "about " if job.mixture else ""
    decided("tokens", f"{about}{tokens:,} an epoch, {supervised:,} supervised ({supervised / tokens:.0%})")
    decided("compute", form)
    if job.extras.balance:
        decided("experts", moe.in_words(config.moe, job.extras.balance))
    ranks = f", on {job.accelerator.num_processes} processes" if job.accelerator.num_processes > 1 else ""
    decided(
        "steps",
        f"{job.total_steps:,} of {config.batch_size} examples{ranks}, micro-batches up to {job.token_budget:,} tokens; "
        f"a checkpoint every {job.save_every} steps",
    )
    for line in memory.lines()[1:]:
        console.say(line)
    console.say(to_rich(preview_rows(renderer, examples, 1)))
