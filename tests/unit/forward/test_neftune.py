"""NEFTune's noise: in training only, of the row's own length, the same for packed and padded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import random_rows

from tuneloop.forward.batch import collate
from tuneloop.forward.noise import noisy_embeddings
from tuneloop.forward.objective import Objective, prepare

Make = Callable[..., Any]


def noise_of(model: Any, *, packed: bool, alpha: float = 5.0) -> list[Tensor]:
    """What is added to each row's embeddings."""
    rows = random_rows(6)
    batch = collate(rows, packed=packed)
    embed = model.get_input_embeddings()
    torch.manual_seed(0)
    with torch.no_grad(), noisy_embeddings(model, batch, alpha):
        noisy = embed(batch.ids)
    gap = (noisy - embed(batch.ids)).detach()
    if packed:
        return list(gap[0].split([len(row) for row in rows]))
    for number, row in enumerate(rows):
        assert not gap[number, len(row) :].any(), "padding stays as it is"
    return [gap[number, : len(row)] for number, row in enumerate(rows)]


def test_its_size_is_alpha_by_the_root_of_the_rows_numbers(tiny_model: Make) -> None:
    model = tiny_model()
    packed, padded = noise_of(model, packed=True), noise_of(model, packed=False)
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other)
        largest = 5.0 / one.numel() ** 0.5
        assert 0.8 * largest < float(one.abs().max()) <= largest * 1.0001
        assert abs(float(one.mean())) < 0.2 * largest
    drawn = torch.cat([one.flatten() * one.numel() ** 0.5 for one in packed])
    assert float(drawn.std()) == pytest.approx(5.0 / 3**0.5, rel=0.05), "uniform"


def test_never_in_validation(tiny_model: Make) -> None:
    objective, _ = prepare(tiny_model(), random_rows(4), 0)
    batch = collate(random_rows(4), packed=True)
    with torch.no_grad():
        plain = objective.side(batch).hidden_ND
        assert torch.equal(objective.eval().side(batch, neftune=5.0).hidden_ND, plain)
        assert not torch.equal(objective.train().side(batch, neftune=5.0).hidden_ND, plain)
        assert torch.equal(objective.side(batch).hidden_ND, plain), "the hook is gone"


def test_with_gradient_checkpointing(tiny_model: Make) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model()
        if checkpointing:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch = collate(random_rows(5), packed=False)
        torch.manual_seed(2)
        Objective(model, packed=False).train().side(batch, neftune=5.0).hidden_ND.square().sum().backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)
