"""Float32 masters: bf16 learns what fp32 learns, state goes round bit for bit; decay and Muon touch the right ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from toy import counting_rows, job_of

from tuneloop.tune import checkpoint
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.loop import _step, train
from tuneloop.tune.optimizer import GROW_AFTER, LARGEST_SCALE, MasterOptimizer
from tuneloop.tune.optimizers import FAMILY
from tuneloop.tune.optimizers.adamw import AdamW
from tuneloop.tune.rates import factors

Make = Callable[..., Any]


def named(dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed_tokens.weight": (7, 4), "layers.0.proj.weight": (4, 6), "layers.0.norm.weight": (4,),
        "layers.0.proj.bias": (6,), "layers.0.experts.down": (3, 4, 2), "lm_head.weight": (7, 4),
    }  # fmt: skip
    return {name: nn.Parameter(torch.randn(*s, generator=draw).to(dtype)) for name, s in shapes.items()}


def give_gradients(optimizer: MasterOptimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for weight in optimizer.model_weights.values():
        weight.grad = torch.randn(weight.shape, generator=draw).to(weight.dtype)
    optimizer.accumulate()


def step(optimizer: MasterOptimizer, seed: int, factor: float = 1.0) -> None:
    give_gradients(optimizer, seed)
    optimizer.step(factor, 1.0, optimizer.gradient_norm())


@pytest.mark.parametrize("name", FAMILY.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    choice = FAMILY.make({name: {"weight_decay": 0.1}})
    first = MasterOptimizer(named(dtype), choice, 1e-2)
    for seed in range(3):
        step(first, seed)
    save_file({key: value.contiguous() for key, value in first.state().items()}, tmp_path / "state")
    second = MasterOptimizer(named(dtype, seed=9), choice, 1e-2)
    second.load_state(load_file(tmp_path / "state"))
    for seed in range(3, 6):
        step(first, seed, 0.5)
        step(second, seed, 0.5)
    one, two = first.state(), second.state()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert all(torch.equal(first.model_weights[key], second.model_weights[key]) for key in first.model_weights)


@pytest.mark.parametrize("name", FAMILY.names())
def test_each_parameter_once_and_decay_on_matrices_only(name: str) -> None:
    optimizer = MasterOptimizer(named(), FAMILY.make({name: {"weight_decay": 0.5}}), 1e-2)
    places: dict[str, float] = {}
    by_id = {id(master): key for key, master in optimizer.masters.items()}
    for inner in optimizer.optimizers:
        for group in inner.param_groups:
            for parameter in group["params"]:
                assert by_id[id(parameter)] not in places, "covered twice"
                places[by_id[id(parameter)]] = group["weight_decay"]
    assert places.keys() == optimizer.masters.keys()
    assert {key for key, decay in places.items() if decay == 0} == {"layers.0.norm.weight", "layers.0.proj.bias"}


@pytest.mark.parametrize("name", FAMILY.names())
def test_chosen_entries_are_weights_of_their_matrix(name: str, tmp_path: Path) -> None:
    """They decay as it does, a matrix may have none, their state goes round; factors [n, 1] do not decay."""

    def made(seed: int) -> MasterOptimizer:
        draw = torch.Generator().manual_seed(seed)
        weights = {key: nn.Parameter(torch.randn(*shape, generator=draw)) for key, shape in
                   {"layers.0.a": (80, 80), "layers.0.b": (80, 80), "layers.0.ia3_l": (64, 1)}.items()}  # fmt: skip
        entries = {"layers.0.a": torch.arange(0, 6400 - 1300), "layers.0.b": torch.zeros(0, dtype=torch.int64)}
        choice = FAMILY.make({name: {"weight_decay": 0.5, "layer_decay": 0.9}})
        return MasterOptimizer(weights, choice, 1e-2, entries=entries)

    first, second = made(0), made(1)
    decays = {id(p): g["weight_decay"] for o in first.optimizers for g in o.param_groups for p in g["params"]}
    assert [decays[id(first.masters[key])] for key in first.masters] == [0.5, 0.5, 0.0]

    def one(optimizer: MasterOptimizer, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        loss = sum((w * torch.randn(w.shape, generator=draw)).sum() for w in optimizer.model_weights.values())
        loss.backward()  # type: ignore[union-attr]
        optimizer.accumulate()
        optimizer.step(1.0, 1.0, optimizer.gradient_norm())

    for seed in range(2):
        one(first, seed)
    save_file({key: value.contiguous() for key, value in first.state().items()}, tmp_path / "state")
    second.load_state(load_file(tmp_path / "state"))
    one(first, 2)
    one(second, 2)
    assert all(torch.equal(first.masters[key], second.masters[key]) for key in first.masters)
    assert first.masters["layers.0.b"].numel() == 0 and torch.isfinite(first.model_weights["layers.0.b"]).all()


def test_muon_takes_the_hidden_matrices() -> None:
    optimizer = MasterOptimizer(named(), FAMILY.make("muon"), 1e-2)
    assert isinstance(optimizer.optimizers[0], torch.optim.Muon)
    muon = [id(p) for group in optimizer.optimizers[0].param_groups for p in group["params"]]
    assert muon == [id(optimizer.masters["layers.0.proj.weight"])]
    only_outer = {"embed.weight": nn.Parameter(torch.randn(3, 3))}
    assert len(MasterOptimizer(only_outer, FAMILY.make("muon"), 1e-2).optimizers) == 1, "nothing for Muon is no error"


def test_lion_is_its_formula() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    optimizer = MasterOptimizer({"w": weight}, FAMILY.make({"lion": {"weight_decay": 0.1}}), 0.01)
    expected, momentum = weight.detach().double(), torch.zeros(2, 2, dtype=torch.float64)
    for row in ([0.5, -1.0], [-3.0, 2.0], [0.1, 0.1]):
        grad = torch.tensor([row, row])
        weight.grad = grad.clone()
        optimizer.step(1.0, 0.0, torch.tensor(1.0))
        expected = expected - 0.01 * (torch.sign(0.9 * momentum + 0.1 * grad) + 0.1 * expected)
        momentum = 0.99 * momentum + 0.01 * grad
        assert torch.allclose(weight.detach().double(), expected, atol=1e-6)


def test_8_bit_moments_follow_the_full_ones() -> None:
    pytest.importorskip("bitsandbytes")
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(64, 128, generator=draw)
    ends: dict[str, torch.Tensor] = {}
    optimizers = {name: MasterOptimizer({"w": nn.Parameter(start.clone())}, FAMILY.make(name), 1e-2)
                  for name in ("adamw", "adamw_8bit")}  # fmt: skip
    for name, optimizer in optimizers.items():
        draw.manual_seed(1)
        for _ in range(20):
            optimizer.masters["w"].grad = torch.randn(64, 128, generator=draw) + start
            optimizer.step(1.0, 0.0, torch.tensor(1.0))
        ends[name] = optimizer.masters["w"].detach() - start
    gap = (ends["adamw"] - ends["adamw_8bit"]).norm() / ends["adamw"].norm()
    assert gap < 0.05
    state = optimizers["adamw_8bit"].state()
    held = {n: sum(t.nbytes for key, t in o.state().items() if "state/" in key) for n, o in optimizers.items()}
    assert state["state/0/state1/w"].dtype is torch.uint8 and held["adamw_8bit"] < 0.35 * held["adamw"]


def test_layers_further_down_learn_slower() -> None:
    names = ["model.embed_tokens.weight", "model.layers.0.q.weight", "model.layers.2.q.weight", "model.norm.weight"]
    found = factors([*names, "lm_head.weight"], 0.5, {"model.layers.0.q.weight": 4.0})
    assert list(found.values()) == [0.125, 1.0, 1.0, 1.0, 1.0]
    assert set(factors(names, 1.0, {}).values()) == {1.0}
    choice = FAMILY.make({"muon": {"layer_decay": 0.5}})
    optimizer = MasterOptimizer(named(), choice, 1e-2)
    rates = {id(p): group["lr"] for o in optimizer.optimizers for group in o.param_groups for p in group["params"]}
    assert rates[id(optimizer.masters["model.embed_tokens.weight"])] == 0.005
    assert rates[id(optimizer.masters["lm_head.weight"])] == 0.01


def test_without_gradient_a_parameter_stays_as_it_is() -> None:
    optimizer = MasterOptimizer(named(), AdamW(weight_decay=0.5), 1e-2)
    before = {key: master.detach().clone() for key, master in optimizer.masters.items()}
    optimizer.masters["lm_head.weight"].grad = torch.ones(7, 4)
    optimizer.step(1.0, 0.0, optimizer.gradient_norm())
    changed = {key for key, master in optimizer.masters.items() if not torch.equal(master, before[key])}
    assert changed == {"lm_head.weight"}


def test_bf16_accumulates_in_float32_and_updates_below_its_resolution() -> None:
    weight = nn.Parameter(torch.full((2, 2), 256.0, dtype=torch.bfloat16))
    optimizer = MasterOptimizer({"w": weight}, AdamW(), 0.1)
    for _ in range(4):
        weight.grad = torch.full((2, 2), 1 / 3, dtype=torch.bfloat16)
        optimizer.accumulate()
        assert weight.grad is None
    grad = optimizer.masters["w"].grad
    assert grad is not None and torch.equal(grad, torch.full((2, 2), 4 * float(torch.tensor(1 / 3).bfloat16())))
    for seed in range(20):  # the resolution of bf16 at 256 is 2: single steps of 0.1 would all be lost
        weight.grad = torch.ones(2, 2, dtype=torch.bfloat16)
        optimizer.accumulate()
        optimizer.step(1.0, 0.0, optimizer.gradient_norm())
        assert seed > 5 or float(weight[0, 0].detach()) in (256.0, 255.0)
    assert float(weight[0, 0].detach()) == pytest.approx(254, abs=0.5)


def test_clipping_bounds_the_norm() -> None:
    optimizer = MasterOptimizer(named(), FAMILY.make("adamw"), 1e-2)
    give_gradients(optimizer, 0)
    norm = optimizer.gradient_norm()
    total = sum(float(m.grad.square().sum()) for m in optimizer.masters.values() if m.grad is not None)
    assert float(norm) == pytest.approx(math.sqrt(total), rel=1e-6) and float(norm) > 1
    seen: list[float] = []
    optimizer.optimizers[0].register_step_pre_hook(lambda *_: seen.append(float(optimizer.gradient_norm())))
    optimizer.step(1.0, 0.5, norm)
    give_gradients(optimizer, 0)
    optimizer.step(1.0, 100.0, norm)
    assert seen == [pytest.approx(0.5, rel=1e-4), float(norm)]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_bf16_model_reaches_what_fp32_reaches(method: str, tiny_model: Make, tmp_path: Path) -> None:
    ends = {}
    for dtype in (torch.float32, torch.bfloat16):
        job = job_of(tiny_model(initializer_range=0.05).to(dtype), counting_rows(16), tmp_path / str(dtype),
                     method=method, steps=30, batch_size=8)  # fmt: skip
        lengths = [len(row) for row in job.rows]
        losses = [_step(job, list(range(8 * (s % 2), 8 * (s % 2) + 8)), lengths, s)["loss"] for s in range(30)]
        ends[dtype] = (losses[0], losses[-1])
    (start, exact), (_, half) = ends[torch.float32], ends[torch.bfloat16]
    assert exact < start * 0.8, "the toy is learnt"
    assert half == pytest.approx(exact, rel=0.05)


def test_fp16_backs_off_and_goes_on(tiny_model: Make, tmp_path: Path) -> None:
    job = job_of(tiny_model(initializer_range=0.05).to(torch.float16), counting_rows(4), tmp_path, steps=12)
    job.optimizer.loss_scale = 2.0**30  # far too high: the first gradients overflow
    before = {name: master.detach().clone() for name, master in job.optimizer.masters.items()}
    first = _step(job, [0, 1, 2, 3], [10] * 4, 0)
    assert not math.isfinite(first["gradient_norm"]) and job.optimizer.loss_scale == 2.0**29
    assert math.isfinite(first["loss"])
    assert all(torch.equal(master, before[name]) for name, master in job.optimizer.masters.items())
    while not math.isfinite(_step(job, [0, 1, 2, 3], [10] * 4, 0)["gradient_norm"]):
        assert job.optimizer.loss_scale >= 1
    last = [_step(job, [0, 1, 2, 3], [10] * 4, s)["loss"] for s in range(12)][-1]
    assert last < first["loss"] * 0.8
    job.optimizer.loss_scale = 4.0
    train(job)
    assert '"loss_scale": 4.0' in next(job.checkpoints.glob("step-*/progress.json")).read_text()


def test_fp16_grows_again_after_good_steps(tmp_path: Path) -> None:
    optimizer = MasterOptimizer(named(torch.float16), FAMILY.make("adamw"), 1e-3)
    optimizer.loss_scale, optimizer.good_steps = 8.0, GROW_AFTER - 2
    step(optimizer, 0)
    checkpoint.save(tmp_path, Progress(step=1), optimizer)
    other = MasterOptimizer(named(torch.float16, seed=9), FAMILY.make("adamw"), 1e-3)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    checkpoint.load(found, other)
    for one in (optimizer, other):
        assert one.loss_scale == 8.0
        step(one, 1)
        assert (one.loss_scale, one.good_steps) == (16.0, 0)
    step(optimizer, 2)
    assert optimizer.back_off() and (optimizer.loss_scale, optimizer.good_steps) == (8.0, 0)
    optimizer.loss_scale, optimizer.good_steps = LARGEST_SCALE, GROW_AFTER
    step(optimizer, 3)
    assert optimizer.loss_scale == LARGEST_SCALE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_fp16_the_scale_stays(dtype: torch.dtype) -> None:
    optimizer = MasterOptimizer(named(dtype), FAMILY.make("adamw"), 1e-3)
    step(optimizer, 0)
    assert (optimizer.loss_scale, optimizer.good_steps) == (1.0, 0)


def test_gradients_of_fp32_beside_fp16_are_unscaled_too() -> None:
    weights = {"half": nn.Parameter(torch.ones(2, 2).half()), "norm": nn.Parameter(torch.ones(3))}
    optimizer = MasterOptimizer(weights, FAMILY.make("adamw"), 1e-2)
    for _ in range(2):
        for weight in weights.values():
            weight.grad = torch.full_like(weight, 3.0 * optimizer.loss_scale)
        optimizer.accumulate()
    assert all(torch.equal(m.grad, torch.full_like(m, 6.0)) for m in optimizer.masters.values() if m.grad is not None)
    optimizer.step(1.0, 0.0, optimizer.gradient_norm())
    assert all(bool((weight < 1).all()) for weight in weights.values())
    assert torch.equal(weights["norm"], optimizer.masters["norm"])
