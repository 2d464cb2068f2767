"""What makes a step fast changes nothing: own attention, norms and LoRA layers against those of the libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import PACKED
from peft.tuners.lora import Linear
from toy import NO_DROPOUT, job_of, random_rows

from tuneloop.forward.hasten import hasten_norms
from tuneloop.models.lora import PlainLora


def gradients(model: Any, folder: Path, method: Any, *, fast: bool) -> tuple[float, torch.Tensor]:
    """Loss and all gradients of eight rows, of which the longest take several blocks of queries."""
    torch.manual_seed(3)
    rows = random_rows(8, shortest=5, longest=130)
    job = job_of(model, rows, folder, packed=fast, method=method, batch_size=8)
    for name, weight in job.optimizer.model_weights.items():
        if "lora_B" in name:  # zero at first, so that A would have no gradient
            torch.nn.init.normal_(weight, std=0.1)
    layers = [module for module in job.objective.modules() if type(module) is PlainLora]
    assert bool(layers) == (method != "full")
    if fast:
        hasten_norms(job.objective)
    else:
        for layer in layers:
            layer.__class__ = Linear
    ((loss, _),) = job.terms.parts(range(8), 0, 0, 1, 1.0)
    loss.backward()
    weights = job.optimizer.model_weights.values()
    return float(loss.detach()), torch.cat([
        (torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in weights
    ]).double()  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("method", ["full", {"lora": {"rank": 4, "alpha": 7}}], ids=["full", "lora"])
def test_same_loss_and_gradients(name: str, method: Any, tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    ours, theirs = (
        gradients(tiny_model(name, **NO_DROPOUT.get(name, {}), initializer_range=0.1), tmp_path, method, fast=fast)
        for fast in (True, False)
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert float((ours[1] - theirs[1]).norm() / theirs[1].norm()) < 3e-6
