"""The frozen lower layers from a file: the same losses and gradients as through all layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
    assert slopes.keys() == grads.keys()
    for parameter, slope in slopes.items():
        assert float((grads[parameter] - slope).norm()) <= 2e-4 * float(slope.norm()) + 1e-6, parameter
