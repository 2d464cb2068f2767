"""What every tuning method, schedule and optimizer must do, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import BaseModel, ValidationError
from toy import counting_rows, job_of

from tuneloop.core import docstrings
from tuneloop.core.plugins import Family
from tuneloop.track import metrics
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.loop import train
from tuneloop.tune.methods import FAMILY as METHODS
from tuneloop.tune.optimizers import FAMILY as OPTIMIZERS
from tuneloop.tune.schedules import FAMILY as SCHEDULES

FAMILIES: tuple[Family[Any], ...] = (METHODS, OPTIMIZERS, SCHEDULES)
EVERY = [(family, name) for family in FAMILIES for name in family.names()]
RATES = {"ia3": 0.1}
"""Learning rates of methods with so few parameters that they need a larger one."""
IDS = [f"{family.name}-{name}" for family, name in EVERY]


@pytest.mark.parametrize(("family", "name"), EVERY, ids=IDS)
def test_documented_constructed_and_dumped(family: Family[Any], name: str) -> None:
    plugin = family.make(name)
    assert family.name_of(plugin) == name
    assert type(plugin).__doc__ and type(plugin).__doc__ != family.interface.__doc__, f"{name} has no docstring"
    for option, info in type(plugin).model_fields.items():
        assert docstrings.of_fields(type(plugin)).get(option), f"{name}.{option} has no documentation"
        assert not info.is_required(), f"{name}.{option} has no default"

    class Holder(BaseModel):
        chosen: Annotated[family.interface, family]  # type: ignore[name-defined]

    dumped = Holder(chosen=plugin).model_dump(mode="json")
    assert dumped["chosen"].keys() == {name}
    assert Holder.model_validate(dumped).chosen == plugin
    assert name in str(Holder.model_json_schema())
    with pytest.raises(ValidationError):
        family.make({name: {"no_such_option": 1}})


@pytest.mark.parametrize(("family", "name"), EVERY, ids=IDS)
def test_every_number_is_guarded(family: Family[Any], name: str) -> None:
    for option, info in family.load(name).model_fields.items():
        if info.annotation in (int, float):
            with pytest.raises(ValidationError):
                family.make({name: {option: -1}})


@pytest.mark.parametrize("name", METHODS.names())
def test_a_method_trains_something_and_says_what_comes_out(name: str, tiny_model: Callable[..., Any]) -> None:
    method = METHODS.make(name)
    model = tiny_model()
    names = [key for key, _ in model.named_parameters()]
    trained = method.apply(model)
    parameters = list(trained.parameters())
    share = sum(p.numel() for p in parameters if p.requires_grad) / sum(p.numel() for p in parameters)
    assert 0 < share <= 1 and (share < 1 or not method.adapter)
    assert 0 < method.count(trained) <= share * sum(p.numel() for p in parameters) + 0.5
    assert {p.dtype for p in parameters} == {torch.float32}
    if not method.adapter:
        assert [key for key, _ in trained.named_parameters()] == names
    assert METHODS.make(name).apply(tiny_model().to(torch.bfloat16)).dtype is torch.bfloat16


@pytest.mark.parametrize(("family", "name"), EVERY, ids=IDS)
def test_the_loss_falls_with_each_of_them(
    family: Family[Any], name: str, tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    key = {"methods": "method", "optimizers": "optimizer", "schedules": "schedule"}[family.name]
    rate = RATES.get(name, 1e-2)
    job = job_of(tiny_model(), counting_rows(8), tmp_path, steps=20, batch_size=8, learning_rate=rate, **{key: name})
    frozen = {k: p.detach().clone() for k, p in job.objective.model.named_parameters() if not p.requires_grad}
    train(job)
    losses = [row["loss"] for row in metrics.read(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.95 * losses[0]
    now = dict(job.objective.model.named_parameters())
    assert all(torch.equal(now[k], value) for k, value in frozen.items()), "what is not trained stays as it is"


def test_the_branch_loads_without_heavy_packages() -> None:
    code = (
        "import sys\nfrom tuneloop.tune.config import TuneConfig\nTuneConfig.model_json_schema()\nTuneConfig()\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'peft', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_branch_goes_round() -> None:
    config = TuneConfig.model_validate({"method": {"lora": {"rank": 3}}, "schedule": "wsd", "optimizer": "muon"})
    assert TuneConfig.model_validate(config.model_dump(mode="json")) == config
