"""Faster forms stand on the modules that compute just that, on no others, and go again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tuneloop.forward.hasten import hasten, own_forms


def standing(model: nn.Module) -> list[str]:
    """Names of the forward passes that stand in for modules' own."""
    return sorted(module.forward.__func__.__name__ for module in model.modules() if "forward" in vars(module))


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("llama", {"norm": 5, "_feed": 2, "forward": 2}),
        ("qwen3", {"norm": 9, "_feed": 2, "forward": 2}),
        ("mistral", {"norm": 5, "_feed": 2, "forward": 2}),
        ("gemma2", {"forward": 2}),  # norms that count from 1, gates by another function
        ("glm4", {"norm": 9}),  # turns neighbours, not halves; its gate and what it opens are one product
        ("gpt2", {}),
    ],
)
def test_which_modules(name: str, forms: dict[str, int], tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(name)
    before = model.state_dict().keys()
    hasten(model)
    found = standing(model)
    assert {form: found.count(form) for form in found} == forms
    assert model.state_dict().keys() == before
    own_forms(model)
    assert not standing(model)


def test_who_stands_there_already_stays(tiny_model: Callable[..., Any]) -> None:
    """As accelerate's hooks do."""
    model = tiny_model("llama")
    own = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = own
    hasten(model)
    own_forms(model)
    assert model.model.layers[0].mlp.forward is own


def test_copies_compute_for_themselves(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    hasten(model)
    other = copy.deepcopy(model)
    ids = torch.arange(5, 15)[None]
    before = model(ids).logits
    assert torch.equal(other(ids).logits, before)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert torch.equal(model(ids).logits, before) and not other(ids).logits.any()


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral"])
def test_padded_rows_and_generation_as_before(name: str, tiny_model: Callable[..., Any]) -> None:
    """The forms take what is not packed too, or leave it to the model's own."""
    model = tiny_model(name).eval()
    ids = torch.arange(5, 25).view(2, 10)
    given = {"input_ids": ids, "attention_mask": torch.tensor([[1] * 10, [0] * 3 + [1] * 7])}
    own, answered = model(**given).logits, model.generate(**given, max_new_tokens=5, do_sample=False)
    hasten(model)
    torch.testing.assert_close(model(**given).logits, own, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.generate(**given, max_new_tokens=5, do_sample=False), answered)
