"""The tests of what stands beside attention, of gpu.py by Triton's interpreter; test_gpu.py runs this in a process that
has Triton, which all others do without, as on users' machines that have no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.forward.test_kernels import (  # noqa: F401  collected here, with the fixture of this file
    apart,
    test_likelihoods,
    test_norms_and_gates,
    test_turns,
    test_what_is_no_number_stays_none_beside_attention,
)
from tuneloop.forward import kernels
from tuneloop.forward.attention import use_packed
from tuneloop.forward.gpu import GpuKernels
from tuneloop.forward.objective import Objective


@pytest.fixture
def either() -> Callable[[torch.dtype], Any]:
    """What stands beside attention, by dtype."""
    return lambda dtype: GpuKernels()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_compared_before_it_is_used(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    find = kernels.on_gpu.__wrapped__
    assert isinstance(find(dtype, "cpu"), GpuKernels)
    right = GpuKernels.gated

    def wrong(self: Any, gate: Tensor, held: Tensor) -> Tensor:
        return 1.5 * right(self, gate, held)

    def unbuilt(self: Any, gate: Tensor, held: Tensor) -> Tensor:
        raise RuntimeError("no code for this GPU\nat line 1")

    monkeypatch.setattr(GpuKernels, "gated", wrong)
    assert "differs from PyTorch by 0." in find(dtype, "cpu")
    monkeypatch.setattr(GpuKernels, "gated", unbuilt)
    assert find(dtype, "cpu") == "Triton: RuntimeError: no code for this GPU"


def test_training_by_it_gives_the_same(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        def __init__(self, length: int) -> None:
            self.ids = np.random.default_rng(length).integers(5, 60, length)
            self.weights = np.ones(length, np.float32)

    rows: Any = [Made(length) for length in (5, 9)]

    def gradients() -> Tensor:
        objective = Objective(tiny_model("qwen3"), packed=True)
        use_packed(objective.model)  # type: ignore[arg-type]
        objective(objective.batch(rows, 0))[0].backward()
        return torch.cat([one.grad.flatten() for one in objective.parameters() if one.grad is not None])

    monkeypatch.setattr(kernels, "kernels", lambda dtype: "by PyTorch alone")
    own = gradients()
    monkeypatch.setattr(kernels, "kernels", lambda dtype: GpuKernels())
    assert apart(gradients(), own) < 3e-6
