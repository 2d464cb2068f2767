"""Models that are asked and not trained: the base that `keep` holds on to, and the teacher of `distill`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from tuneloop.core.conversation import Example
from tuneloop.core.errors import ModelError
from tuneloop.forward import objective as forward
from tuneloop.forward.batch import everywhere
from tuneloop.forward.divergence import Side
from tuneloop.forward.objective import Objective
from tuneloop.models import fit
from tuneloop.models.adapters import load_with_adapter
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.load import config_of, load_model
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.render.rendered import Rendered
from tuneloop.render.template import Renderer
from tuneloop.render.whole import render_whole
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.objective import Distill

PROBED = 64
"""Tokens on which a model with its adapter off is compared with the base."""


class Teacher:
    """A model in evaluation mode, without gradients; with `adapter_off`, the tuned model without its adapter."""

    def __init__(self, objective: Objective, pad_id: int, *, adapter_off: bool = False) -> None:
        self.objective, self.pad_id, self.adapter_off = objective, pad_id, adapter_off

    @torch.no_grad()
    def side(self, rows: Sequence[forward.Row], *, all_positions: bool = False) -> Side:
        """What it says at the scored positions of the rows, or at all of them, in the order of any batch of these."""
        batch = self.objective.batch(rows, self.pad_id)
        batch = everywhere(batch) if all_positions else batch
        if not self.adapter_off:
            return self.objective.eval().side(batch)
        training = self.objective.training
        with _adapter_off(self.objective.model):
            side = self.objective.eval().side(batch)
        self.objective.train(training)
        head = side.head  # it is used when the adapter is on again, so what is adapted gives its original
        head = getattr(head, "original_module", None) or getattr(head, "base_layer", head)
        return Side(side.hidden_ND, head, side.finish)


@contextmanager
def _adapter_off(model: Any) -> Iterator[None]:
    """peft's switch, which forgets which of the adapter's parameters were frozen."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@dataclass(frozen=True)
class Kept:
    """The rows of `keep`, and what the base says to the first of them before a method has changed it."""

    rows: list[Rendered]
    first: Tensor
    """log p [T, V] of the first tokens of the first row."""

    @classmethod
    def of(cls, model: PreTrainedModel, renderer: Renderer, prompts: Sequence[Example], config: TuneConfig) -> Kept:
        """The rows of a recipe, asked of the model as it was loaded. Raises DataError when none can be rendered."""
        rows = render_whole(renderer, prompts, config.max_length, "tune.objective.keep.prompts")
        ids = torch.from_numpy(rows[0].ids[:PROBED].astype(np.int64)).to(model.device)[None]
        with torch.no_grad():
            return cls(rows, model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1))


def base_teacher(
    objective: Objective, base: Base, kept: Kept, pad_id: int, *, adapter: bool, seed: int
) -> tuple[Teacher, str]:
    """The base as it was before the method changed it, and in words how it is kept.

    The adapter is switched off where that gives the base again; some methods change frozen weights too (PiSSA), and
    then the base is loaded once more. Of a model that is trained itself only the trained weights are copied.
    """
    if not adapter:
        shared = {id(p): p for p in objective.model.parameters() if not p.requires_grad}
        model: Any = copy.deepcopy(objective.model, shared).requires_grad_(False)
        return Teacher(Objective(model, packed=objective.packed), pad_id), "a frozen copy of the trained weights"
    teacher = Teacher(objective, pad_id, adapter_off=True)
    row = kept.rows[0]
    side = teacher.side([Rendered(row.ids[:PROBED], row.weights[:PROBED], row.example)], all_positions=True)
    with torch.no_grad():
        off = side.log_p(side.hidden_ND, kept.first.shape[-1], 1.0)
    gap = float((kept.first.exp() * (kept.first - off)).sum(-1).mean())
    dtype = next(objective.parameters()).dtype
    if abs(gap) <= forward.TOLERANCE[dtype]:
        return teacher, "the adapter is switched off for it"
    core = forward.core_of(objective.model)
    again = load_model(base, core.dtype, seed=seed, device=str(core.device)).requires_grad_(False)
    if objective.packed:
        forward.use_packed(again, str(core.config._attn_implementation))
    return Teacher(Objective(again, packed=objective.packed), pad_id), "loaded a second time (the method changes it)"


def distill_teacher(
    config: Distill, student: Renderer, rows: Sequence[Rendered], dtype: torch.dtype, *, device: str
) -> Teacher:
    """The teacher of a recipe. Raises ModelError when its vocabulary is another one."""
    base = _teacher_base(config)
    own, theirs = student.tokenizer.get_vocab(), load_tokenizer(base).get_vocab()
    if own != theirs:
        unlike = sorted((set(own.items()) ^ set(theirs.items())), key=lambda item: item[1])
        token, number = unlike[0]
        raise ModelError(
            f"tune.objective.distill.teacher: '{base.name}' has another vocabulary than the tuned model "
            f"({len(theirs)} and {len(own)} tokens; {len(unlike)} entries differ, e.g. {token!r} = {number}), so their "
            f"distributions cannot be compared. Take a teacher of the same family, or train on its answers instead"
        )
    model = load_with_adapter(base, dtype, device=device).requires_grad_(False)
    objective, _ = forward.prepare(model, rows, student.pad_id)
    return Teacher(objective, student.pad_id)


def memory_of(config: TuneConfig, architecture: PreTrainedConfig, changed: int, dtype: torch.dtype) -> int:
    """Bytes of weights that teachers need beside the tuned model; `changed`: values of the tensors that are trained."""
    values = 0
    if config.objective.keep and not config.method.adapter:
        values += changed
    elif config.objective.keep and not config.method.restores_base:
        values += fit.count_parameters(architecture)[0]
    if config.objective.distill:
        values += fit.count_parameters(config_of(_teacher_base(config.objective.distill)))[0]
    return values * dtype.itemsize


def _teacher_base(config: Distill) -> Base:
    return find_base(ModelConfig(base=config.teacher, adapter=config.adapter))
