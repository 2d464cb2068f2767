"""The stage `tune`: prepared files and a base model → out/adapter or out/model, checked against what was trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError, ModelError, TrainingError
from tuneloop.core.runs import Run
from tuneloop.forward import objective as forward
from tuneloop.forward.batch import collate
from tuneloop.forward.mixing import Mix, Mixture
from tuneloop.forward.objective import Objective, core_of
from tuneloop.forward.plan import token_budget
from tuneloop.models import adapters, fit
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.load import load_model, model_from
from tuneloop.models.precision import pick_dtype
from tuneloop.models.save import save_model
from tuneloop.render.load import renderer_of
from tuneloop.render.preview import preview_rows, to_rich
from tuneloop.render.rendered import Rendered
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.loop import Job, Validate, train
from tuneloop.tune.methods import FAMILY as METHODS
from tuneloop.tune.methods import Setting
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.rows import Rows, losses_in_words, render_rows, sources_of

Scorer = Callable[[nn.Module, Renderer, Sequence[Example]], dict[str, tuple[float, bool]]]
"""Generates answers and scores them: name → (value, lower is better). Given by the flow, which knows `evaluate`."""


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
) -> Tuned:
    """Tunes a model inside `run` (held by the caller); continues from the run's last checkpoint if there is one.

    `mix` says which rows an epoch is made of; without it, it is all of them once.
    """
    _seed_all(seed)
    accelerator = Accelerator()
    base = find_base(model_config)
    renderer = renderer_of(base)
    train_set = render_rows(renderer, train_rows, config, "render")
    val_set = render_rows(renderer, val_rows[: config.validation.rows], config, "render val")
    _write_drops(run, train_set, val_set)
    mixture = Mixture.of(mix, sources_of(train_set, train_rows), seed) if mix else None

    dtype, why = pick_dtype(model_config.dtype, str(accelerator.device.type))
    model = load_model(base, dtype, seed=seed, device=str(accelerator.device))
    trained = _continued(config, model, base) if base.adapter else config.method.apply(model)
    if config.memory.gradient_checkpointing:
        forward.checkpoint_activations(trained)
    objective, form = forward.prepare(trained, train_set.rendered, renderer.pad_id)
    budget = config.memory.token_budget or token_budget(str(accelerator.device))
    named = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    setting = Setting(renderer.tokenizer, seed, partial(_gradients, objective, train_set.rendered, renderer.pad_id))
    if not base.adapter:
        config.method.initialise(trained, setting)
    optimizer = MasterOptimizer(
        named, config.optimizer, config.learning_rate, config.method.rates(named),
        config.method.entries(trained, setting),
    )  # fmt: skip
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
    )
    if accelerator.is_main_process:
        _say_decisions(job, base, renderer, train_set, len(train_rows), f"{why}; {form}", train_rows)
    progress = train(job)
    accelerator.wait_for_everyone()
    folder = run.out / ("adapter" if config.method.adapter else "model")
    if accelerator.is_main_process:
        trained_loss = _loss(job, objective)  # before the export, which takes the packed attention away
        config.method.finish(trained)
        _export(trained, renderer, base, folder, config, seed)
        _check_export(job, base, folder, dtype, trained_loss)
    return Tuned(folder, config.method.adapter, progress)


def trainable_parameters(config: TuneConfig, architecture: PreTrainedConfig) -> int:
    """How many parameters the method trains, counted without memory for any."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture)
        trained = config.method.apply(model)
    return config.method.count(trained)


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
    sample = val_rows[: config.validation.generate]

    def validate() -> dict[str, tuple[float, bool]]:
        loss = forward.mean_nll(objective, val_set.rendered, pad_id=renderer.pad_id, budget=budget)
        values = {"loss": (loss, True)}
        if scorer and sample:
            values |= scorer(model, renderer, sample)
        return values

    return validate


def _say_decisions(
    job: Job, base: Base, renderer: Renderer, rows: Rows, given: int, form: str, examples: Sequence[Example]
) -> None:
    """Everything decided for the user, said once: rows, precision, batch, memory, one masked sample."""
    config = job.config
    trainable = config.method.count(job.objective.model)
    total = sum(p.numel() for p in job.objective.parameters())
    core = core_of(job.objective.model)
    memory = fit.estimate(
        core.config, tokens_per_step=job.token_budget, dtype=core.dtype, trainable=trainable,
        beside=config.method.adapter, checkpointing=config.memory.gradient_checkpointing,
        device=str(job.accelerator.device), supervised_share=rows.supervised / rows.tokens,
    )  # fmt: skip
    decided = console.decided
    decided("base", f"{base.name}: {total / 1e6:,.1f} M parameters, {trainable / 1e6:,.2f} M trained")
    for decision in (config.method.words(job.objective.model), *base.decisions, *renderer.decisions):
        if decision:
            decided("decided", decision)
    decided("rows", losses_in_words(rows, given))
    if job.mixture:
        decided("epoch", job.mixture.in_words([row.supervised for row in job.rows]))
    first = [job.rows[i] for step in job.plan(0) for i in step]
    tokens, supervised = sum(map(len, first)), sum(row.supervised for row in first)
    about = "about " if job.mixture else ""
    decided("tokens", f"{about}{tokens:,} an epoch, {supervised:,} supervised ({supervised / tokens:.0%})")
    decided("compute", form)
    ranks = f", on {job.accelerator.num_processes} processes" if job.accelerator.num_processes > 1 else ""
    decided(
        "steps",
        f"{job.total_steps:,} of {config.batch_size} examples{ranks}, micro-batches up to {job.token_budget:,} tokens; "
        f"a checkpoint every {job.save_every} steps",
    )
    for line in memory.lines()[1:]:
        console.say(line)
    console.say(to_rich(preview_rows(renderer, examples, 1)))


def _continued(config: TuneConfig, model: PreTrainedModel, base: Base) -> Any:
    """The base's adapter, to be trained further: its own shape counts, so other options would be ignored in silence."""
    assert base.adapter is not None
    if not config.method.adapter:
        raise ModelError(
            f"model.adapter: '{METHODS.name_of(config.method)}' trains whole models. Merge the adapter first "
            f"(tuneloop merge {base.adapter}) and take the merged folder as model.base, or tune with method lora."
        )
    stored = adapters.check_folder(base.adapter)
    for option, key in (("rank", "r"), ("alpha", "lora_alpha"), ("dropout", "lora_dropout")):
        wanted = getattr(config.method, option)
        if wanted != stored.get(key):
            raise ModelError(
                f"tune.method.lora.{option} is {wanted}, but the adapter {base.adapter} that training starts from has "
                f"{stored.get(key)}: write that value, or leave model.adapter out to start anew"
            )
    targets, has = getattr(config.method, "targets", "auto"), stored.get("target_modules")
    if targets != "auto" and (targets if isinstance(targets, str) else sorted(targets)) != (
        has if isinstance(has, str) or has is None else sorted(has)
    ):
        raise ModelError(f"tune.method.lora.targets: {base.adapter} adapts {has}; leave targets at auto")
    return adapters.attach(model, base.adapter, base, trainable=True)


def _export(trained: Any, renderer: Renderer, base: Base, folder: Path, config: TuneConfig, seed: int) -> None:
    """Writes the adapter or the model in the ecosystem's own format, with the template that it was trained with."""
    renderer.tokenizer.chat_template = renderer.chat_template
    stops = sorted(renderer.stop_ids)
    if config.method.adapter:
        adapters.save_adapter(trained, renderer.tokenizer, base, folder, seed=seed, stop_ids=stops)
    else:
        forward.use_standard(trained)
        save_model(trained, renderer.tokenizer, folder, stop_ids=stops)


def _loss(job: Job, objective: Objective) -> float:
    """Mean loss of a few real rows, for the comparison of what was trained with what was written."""
    return forward.mean_nll(objective, job.rows[:8], pad_id=job.pad_id, budget=job.token_budget)


def _check_export(job: Job, base: Base, folder: Path, dtype: torch.dtype, trained_loss: float) -> None:
    """Exported = trained: what was written is loaded again and must hold the same weights and give the same loss."""
    device = str(job.accelerator.device)
    if job.config.method.adapter:
        exported = replace(base, adapter=folder)
        again: nn.Module = adapters.load_with_adapter(exported, dtype, seed=job.seed, device=device)
    else:
        again = model_from(folder, dtype, device=device)
    found = dict(again.named_parameters())
    weights = {name: p for name, p in job.objective.model.named_parameters() if p.requires_grad}
    wrong = [name for name in weights if name not in found or not torch.equal(weights[name], found[name])]
    if wrong:
        raise ModelError(
            f"{folder}: {len(wrong)} of {len(weights)} exported weights are not the trained ones, e.g. {wrong[0]}. The "
            f"disk or another program changed them; tuneloop tune --resume {job.folder.name} writes them again."
        )
    fresh, _ = forward.prepare(again, job.rows, job.pad_id)
    gap = abs(trained_loss - _loss(job, fresh))
    # the weights are bit-equal, so what is left is rounding: in deep bf16 models it reaches hundredths of a nat
    if not gap <= forward.TOLERANCE[dtype]:
        raise ModelError(f"{folder}: the exported weights give another loss than the trained ones (Δ {gap:.3g} nats)")
    console.decided("exported", f"{folder} (loaded again: Δ loss {gap:.1e} nats)")
