"""The router loss in a real run: on by default, logged, exact however a step is cut; routers frozen on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import conversations, job_of, random_rows, tune_in

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import targets
from tuneloop.models.load import model_from
from tuneloop.track import metrics
from tuneloop.tune.loop import train
from tuneloop.tune.moe import Moe, balance_of

Make = Callable[..., Any]


def test_on_by_default_logged_and_written(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    base = {"base": str(model_folder("qwen3_moe"))}
    run, _ = tune_in(tmp_path, base, steps=3, train=conversations(12))
    rows = metrics.read(run.path / "metrics.jsonl")
    assert all(1.9 < row["router_loss"] < 4.1 for row in rows), "2 of 4 experts: 2 is even, 4 all on one pair"
    assert all(0 <= row["expert_load_min"] <= 1 <= row["expert_load_max"] <= 2 for row in rows)
    told = jsonl.read(run.out / "expert_load.json")
    assert told["routers"] == ["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]
    for when in ("before", "after"):
        assert [sum(loads) for loads in told[when]] == pytest.approx([4, 4], abs=1e-3)
    assert told["before"] != told["after"]
    page = (run.out / "expert_load.html").read_text()
    assert page.count("<rect") == 2 * 2 * 4 and "model.layers.0" in page and "http" not in page.split("<style>")[1]


def test_a_model_without_routers_logs_nothing(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    run, _ = tune_in(tmp_path, {"base": str(model_folder("llama"))}, steps=1)
    assert "router_loss" not in metrics.read(run.path / "metrics.jsonl")[0]
    assert not (run.out / "expert_load.json").exists()


@pytest.mark.parametrize("options", [{"router_loss": 0.1}, {"freeze_routers": True}])
def test_options_without_a_router_are_refused(
    options: dict[str, Any], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"tune.moe.{next(iter(options))}"):
        tune_in(tmp_path, {"base": str(model_folder("llama"))}, steps=1, method="full", moe=options)


def test_frozen_routers_stay_bit_for_bit(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = model_folder("mixtral")
    _, tuned = tune_in(tmp_path, {"base": str(folder)}, steps=2, method="full", moe={"freeze_routers": True})
    before, after = (model_from(where, torch.float32) for where in (folder, tuned.folder))
    for name, router in targets.routers(before).items():
        assert torch.equal(router.module.weight, targets.routers(after)[name].module.weight)  # type: ignore[arg-type]
    assert not torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)


def test_it_evens_the_load(tiny_model: Make, tmp_path: Path) -> None:
    """A router that sends nearly everything to one expert learns to spread it, by this loss alone."""
    worst = []
    for weight in (0.0, 1.0):
        model = tiny_model("mixtral", num_hidden_layers=1)
        gate = next(iter(targets.routers(model).values())).module
        with torch.no_grad():
            gate.weight[1] = 2 * gate.weight[0]  # type: ignore[index]
        values = {"steps": 30, "batch_size": 16, "learning_rate": 3e-3, "moe": {"router_loss": weight}}
        train(job_of(model, random_rows(16), tmp_path / str(weight), **values))
        worst.append(metrics.read(tmp_path / str(weight) / "metrics.jsonl")[-1]["router_loss"])
    assert worst[1] < worst[0] - 0.02 and worst[1] < 2.1


@pytest.mark.parametrize("budget", [30, 1])
def test_a_step_in_pieces_is_the_whole_step(budget: int, tiny_model: Make, tmp_path: Path) -> None:
    def trained(name: str, token_budget: int) -> tuple[list[float], torch.Tensor]:
        model = tiny_model("qwen3_moe")
        values = {"steps": 2, "batch_size": 10, "token_budget": token_budget, "moe": {"router_loss": 0.5}}
        train(job_of(model, random_rows(10), tmp_path / name, **values))
        rows = metrics.read(tmp_path / name / "metrics.jsonl")
        return [row["router_loss"] for row in rows], next(iter(targets.routers(model).values())).module.weight  # type: ignore[return-value]

    whole, pieces = trained("whole", 10_000), trained("pieces", budget)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(pieces[1], whole[1], rtol=1e-3, atol=2e-5)


def test_the_weight_may_be_given_or_is_the_architectures(tiny_model: Make) -> None:
    model = tiny_model("mixtral", router_aux_loss_coef=0.02)
    assert balance_of(Moe(), model, model.config).weight == 0.02  # type: ignore[union-attr]
    assert balance_of(Moe(router_loss=0.3), model, model.config).weight == 0.3  # type: ignore[union-attr]
    v3 = tiny_model("deepseek_v3")
    assert balance_of(Moe(), v3, v3.config).weight == 0  # type: ignore[union-attr]
