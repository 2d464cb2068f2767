"""Ten steps on a tiny model give the losses on record: a change of the mathematics shows even if all parts still agree.

After a change that is meant to change them: TUNELOOP_GOLDEN=write pytest tests/golden/test_losses.py, and say why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import counting_rows, job_of, random_rows

from tuneloop.track import metrics
from tuneloop.tune.loop import train

CASES: dict[str, dict[str, Any]] = {
    "full_adamw": {"method": "full", "optimizer": {"adamw": {"weight_decay": 0.1}}},
    "lora_adamw": {"method": {"lora": {"rank": 4, "alpha": 8}}, "schedule": {"linear": {"warmup": 3}}},
    "full_muon": {"method": "full", "optimizer": "muon", "schedule": "wsd"},
}


def made_model(tiny_model: Callable[..., Any]) -> Any:
    """Weights by arithmetic: torch's random numbers are no promise between versions and machines."""
    model = tiny_model("llama")
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.ndim > 1:
                count = torch.arange(parameter.numel(), dtype=torch.float64)
                parameter.copy_((0.2 * torch.sin(count * 1.7 + number)).view(parameter.shape))
    return model


@pytest.mark.parametrize("name", CASES)
def test_the_losses_on_record(name: str, tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    rows = counting_rows(16) + random_rows(4)
    job = job_of(made_model(tiny_model), rows, tmp_path, steps=10, batch_size=5, learning_rate=3e-3, **CASES[name])
    with torch.no_grad():
        for number, (key, weight) in enumerate(job.optimizer.model_weights.items()):
            if "lora_" in key:
                wave = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) + number)
                weight.copy_((0.1 * wave).view(weight.shape))
    train(job)
    losses = [row["loss"] for row in metrics.read(tmp_path / "metrics.jsonl")]
    record = Path(__file__).parent / f"losses_{name}.json"
    if os.environ.get("TUNELOOP_GOLDEN") == "write":
        record.write_text(json.dumps([round(loss, 6) for loss in losses]) + "\n")
    assert losses == pytest.approx(json.loads(record.read_text()), rel=1e-4)
    assert losses[-1] < losses[0]
