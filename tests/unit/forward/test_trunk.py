"""The frozen lower layers from a file: the same losses and gradients as through all layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy import NO_DROPOUT, random_rows

from tuneloop.forward import trunk as frozen
from tuneloop.forward.objective import Objective, prepare
from tuneloop.forward.trunk import Trunk
from tuneloop.render.rendered import Rendered
from tuneloop.tune.methods import FAMILY as METHODS

Make = Callable[..., Any]
ARCHITECTURES = ["llama", "gpt2", "gemma2", "gemma3_text", "qwen3_moe", "gpt_oss", "falcon", "mamba2", "qwen3_next"]
MIXED = {
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "gpt2": {"n_layer": 4, **NO_DROPOUT["gpt2"]},
}
UPPER: dict[str, Any] = {
    "freeze": {"freeze": {"layers": 2}},
    "lora": {"lora": {"rank": 4, "layers": [2, 3], "init": "orthogonal"}},
    "norm": {"freeze": {"layers": 0, "norm": True}},
}


def objective_of(make: Make, name: str, method: str) -> Objective:
    """Four layers, the method on top of them, packed where the architecture allows it."""
    deeper = {"num_hidden_layers": 4} if name != "gpt2" else {}
    torch.manual_seed(5)
    model = make(name, **deeper, **MIXED.get(name, {}))
    trained = METHODS.make(UPPER[method]).apply(model)
    return prepare(trained, random_rows(4), 0)[0]


def filled(objective: Objective, rows: Sequence[Rendered], folder: Path, budget: int = 40) -> Trunk:
    trunk, why = frozen.find(objective, rows[:4], pad_id=0)
    assert trunk, why
    trunk.arrange(objective, rows, budget)
    trunk.fill(objective, folder / "hidden", 0)
    trunk.open(folder / "hidden")
    return trunk


def computed(objective: Objective, rows: Sequence[Rendered]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    objective.zero_grad()
    objective.train()
    loss, nll_N = objective(objective.batch(rows, 0))
    loss.backward()
    return nll_N, {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def check_slopes(grads: dict[str, torch.Tensor], slopes: dict[str, torch.Tensor]) -> None:
    assert slopes.keys() == grads.keys()
    for parameter, slope in slopes.items():
        assert float((grads[parameter] - slope).norm()) <= 2e-4 * float(slope.norm()) + 1e-6, parameter


@pytest.mark.parametrize("method", UPPER)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_losses_and_gradients(name: str, method: str, tiny_model: Make, tmp_path: Path) -> None:
    objective, rows = objective_of(tiny_model, name, method), random_rows(9)
    expected, slopes = computed(objective, rows[2:7])
    objective.trunk = filled(objective, rows, tmp_path)
    assert objective.trunk.border == (4 if method == "norm" else 2)
    ran: list[int] = []
    for number, layer in enumerate(objective.trunk.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    nll_N, grads = computed(objective, rows[2:7])
    assert ran == ([] if method == "norm" else [2, 3])
    torch.testing.assert_close(nll_N, expected, rtol=2e-5, atol=2e-5)
    check_slopes(grads, slopes)


def test_rows_that_begin_alike(tiny_model: Make, tmp_path: Path) -> None:
    """In the file each row is whole, whatever company it was computed in."""
    draw = np.random.default_rng(1)
    beginning = draw.integers(3, 300, 30).astype(np.int32)
    rows = [
        replace(row, ids=np.concatenate([beginning, row.ids]), weights=np.concatenate([0 * beginning, row.weights]))
        for row in random_rows(7)
    ]
    objective = objective_of(tiny_model, "llama", "freeze")
    layout = objective.batch(rows[1:4], 0).layout
    assert objective.share and layout is not None and layout.shared
    expected, slopes = computed(objective, rows[1:4])
    objective.trunk = filled(objective, rows, tmp_path, budget=150)
    nll_N, grads = computed(objective, rows[1:4])
    torch.testing.assert_close(nll_N, expected, rtol=2e-5, atol=2e-5)
    check_slopes(grads, slopes)


def test_unknown_rows_run_through_all_layers(tiny_model: Make, tmp_path: Path) -> None:
    objective, rows = objective_of(tiny_model, "llama", "freeze"), random_rows(6)
    others = [rows[0], *random_rows(2, seed=5)]
    expected, _ = computed(objective, others)
    state = torch.get_rng_state()
    objective.trunk = filled(objective, rows, tmp_path)
    assert torch.equal(torch.get_rng_state(), state), "looking for it draws nothing"
    assert torch.equal(computed(objective, others)[0], expected)
    with objective.through_all_layers():
        whole, _ = computed(objective, rows[:2])
    torch.testing.assert_close(computed(objective, rows[:2])[0], whole, rtol=2e-5, atol=2e-5)
