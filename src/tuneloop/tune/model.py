"""The loaded base as the model to train: the method applied to it, or its adapter continued; and how it is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from tuneloop.core.conversation import Example
from tuneloop.core.errors import ModelError
from tuneloop.forward import objective as forward
from tuneloop.forward import ways
from tuneloop.forward.dropout import Dropouts
from tuneloop.forward.objective import Objective, core_of
from tuneloop.models import adapters
from tuneloop.models.find import Base
from tuneloop.models.load import load_model
from tuneloop.render.rendered import Rendered
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.tune.budget import given_budget
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.methods import FAMILY as METHODS
from tuneloop.tune.methods import Setting
from tuneloop.tune.moe import balance_of
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.rows import Rows
from tuneloop.tune.teachers import Kept, base_teacher, distill_teacher
from tuneloop.tune.terms import Extras


@dataclass(frozen=True)
class Subject:
    """A model ready to be trained, and what is computed by it."""

    objective: Objective
    form: str
    """Packed or padded, and why."""
    setting: Setting
    extras: Extras
    dropout: Callable[[], AbstractContextManager[None]]
    """Around the training: the dropout that the recipe asks for."""

    @property
    def model(self) -> Any:
        """With the method on it."""
        return self.objective.model

    @property
    def held_bytes(self) -> int:
        """What its weights and its teachers' take of memory by now, each tensor once."""
        teachers = [teacher.objective for teacher in (self.extras.teacher, self.extras.base) if teacher]
        weights = {p.data_ptr(): p.nbytes for one in (self.objective, *teachers) for p in one.parameters()}
        return sum(weights.values())

    def optimizer(self, config: TuneConfig) -> MasterOptimizer:
        """Over what is trained."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        return MasterOptimizer(
            named, config.optimizer, config.learning_rate, config.method.rates(named),
            config.method.entries(self.model, self.setting),
        )  # fmt: skip


def subject(
    config: TuneConfig,
    base: Base,
    dtype: torch.dtype,
    renderer: Renderer,
    rows: Rows,
    prompts: Sequence[Example],
    *,
    seed: int,
    device: str,
) -> Subject:
    """Loads the base and makes of it what the recipe trains. `prompts` are the rows of `objective.keep`."""
    model = load_model(base, dtype, seed=seed, device=device, quantization=config.method.quantization)
    dropouts = Dropouts.of(model) if config.objective.dropout is not None else None
    kept = Kept.of(model, renderer, prompts, config) if config.objective.keep else None
    trained = continued(config, model, base) if base.adapter else applied(config, model)
    if config.memory.gradient_checkpointing:
        forward.checkpoint_activations(trained)
    dropout = partial(dropouts.set_to, config.objective.dropout or 0.0) if dropouts else nullcontext
    with dropout():
        objective, form = forward.prepare(trained, rows.rendered, renderer.pad_id)
        found = ways.fastest(objective, rows.rendered, renderer.pad_id, given_budget(config.memory, device))
    if config.objective.neftune and objective.share:
        objective.share = False
        form += ", but not with noise on the embeddings"
    form = f"{form}; {found}" if found else form
    setting = Setting(renderer.tokenizer, seed, partial(gradients, objective, rows.rendered, renderer.pad_id))
    if not base.adapter:
        config.method.initialise(trained, setting)
    extras = _extras(config, objective, renderer, rows, base, kept, seed)
    return Subject(objective, form, setting, extras, dropout)


def applied(config: TuneConfig, model: PreTrainedModel) -> Any:
    """The model with the method's parameters to train; works on the meta device too."""
    trained = config.method.apply(model)
    config.moe.freeze(trained)
    return trained


def continued(config: TuneConfig, model: PreTrainedModel, base: Base) -> Any:
    """The base's adapter, to be trained further: its own shape counts, so other options would be ignored in silence."""
    assert base.adapter is not None
    if not config.method.adapter:
        raise ModelError(
            f"model.adapter: '{METHODS.name_of(config.method)}' trains whole models. Merge the adapter first "
            f"(tuneloop merge {base.adapter}) and take the merged folder as model.base, or tune with method lora."
        )
    stored = adapters.check_folder(base.adapter)
    with torch.device("meta"):
        fresh = config.method.apply(AutoModelForCausalLM.from_config(model.config))
    wanted = json.loads(json.dumps(fresh.peft_config["default"].to_dict(), default=list))
    name = METHODS.name_of(config.method)
    for option, key in {"peft_type": "peft_type", **config.method.continued}.items():
        if wanted[key] != stored.get(key, wanted[key]):
            raise ModelError(
                f"tune.method.{name}.{option} is {wanted[key]}, but the adapter {base.adapter} that training starts "
                f"from has {stored[key]}: write that value, or leave model.adapter out to start anew"
            )
    here, there = adapters.shapes_of(fresh), adapters.shapes(base.adapter)
    odd = sorted(tensor for tensor in here.keys() | there.keys() if here.get(tensor) != there.get(tensor))
    if odd:
        raise ModelError(
            f"tune.method.{name}: {base.adapter} trains other parameters than these options would, in all {len(odd)}, "
            f"e.g. {odd[0]} of shape {there.get(odd[0], 'none')} there and {here.get(odd[0], 'none')} here. Write the "
            f"options that it was made with; its layers are {stored.get('target_modules')}"
        )
    return adapters.attach(model, base.adapter, base, trainable=True)


def _extras(
    config: TuneConfig,
    objective: Objective,
    renderer: Renderer,
    rows: Rows,
    base: Base,
    kept: Kept | None,
    seed: int,
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
    balance = balance_of(config.moe, objective.model, core_of(objective.model).config)
    return Extras(rows.rejected, teacher, before, kept.rows if kept else (), balance)


def gradients(objective: Objective, rows: Sequence[Rendered], pad_id: int, count: int) -> Iterator[dict[str, Tensor]]:
    """The gradient of the loss of each of `count` rows, spread evenly over all."""
    for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int).tolist():
        objective.zero_grad(set_to_none=True)
        loss, _ = objective(objective.batch([rows[place]], pad_id))
        loss.backward()
        yield {name: p.grad for name, p in objective.model.named_parameters() if p.grad is not None}
    objective.zero_grad(set_to_none=True)
