"""What was trained, written in the ecosystem's own format and proven by loading it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuneloop.core.errors import ModelError
from tuneloop.forward import objective as forward
from tuneloop.forward.objective import Objective
from tuneloop.models import adapters
from tuneloop.models.find import Base
from tuneloop.models.load import model_from
from tuneloop.models.save import save_model
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.loop import Job


def export(trained: Any, renderer: Renderer, base: Base, folder: Path, config: TuneConfig, seed: int) -> None:
    """Writes the adapter or the model in the ecosystem's own format, with the template that it was trained with."""
    renderer.tokenizer.chat_template = renderer.chat_template
    stops = sorted(renderer.stop_ids)
    if config.method.adapter:
        adapters.save_adapter(
            trained, renderer.tokenizer, base, folder, seed=seed, stop_ids=stops,
            quantization=config.method.quantization,
        )  # fmt: skip
    else:
        forward.use_standard(trained)
        save_model(trained, renderer.tokenizer, folder, stop_ids=stops)


def loss_of(job: Job, objective: Objective) -> float:
    """Mean loss of a few real rows, for the comparison of what was trained with what was written."""
    return forward.mean_nll(objective, job.rows[:8], pad_id=job.pad_id, budget=job.token_budget)


def check(job: Job, base: Base, folder: Path, dtype: torch.dtype, trained_loss: float) -> None:
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
    gap = abs(trained_loss - loss_of(job, fresh))
    # the weights are bit-equal, so what is left is rounding: in deep bf16 models it reaches hundredths of a nat
    if not gap <= forward.TOLERANCE[dtype]:
        raise ModelError(f"{folder}: the exported weights give another loss than the trained ones (Δ {gap:.3g} nats)")
    console.decided("exported", f"{folder} (loaded again: Δ loss {gap:.1e} nats)")
