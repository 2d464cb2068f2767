"""Rows in slots give the logits of the model itself, however they came to join."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import PACKED

from tuneloop.forward import attention
from tuneloop.generate import slots
from tuneloop.generate.slots import Slots

HEAD = list(range(5, 19))
ENDS = [[20], [21, 22, 23, 24, 25, 26, 27], [28, 29, 30]]
KNOWN = [14, 9, 11]
"""Of each prompt: longer and shorter than the windows of the architectures that have them."""


@pytest.mark.parametrize("name", PACKED)
def test_rows_that_go_on_together_equal_rows_that_join(name: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(name).eval()
    prompts = [HEAD + end for end in ENDS]
    with torch.inference_mode(), slots.attending(model):
        whole, apart = Slots(model, None, 0, 8), Slots(model, None, 0, 8)
        whole.join([[7, 8, 9], *prompts])
        apart.join([HEAD])
        known = [[part[:count] for part in apart.parts(0)] for count in KNOWN]
        rows = Slots(model, None, 0, 8)
        rows.join([[7, 8, 9]])
        given = list(zip([prompt[count:] for prompt, count in zip(prompts, KNOWN, strict=True)], known, strict=True))
        found = rows.resume(given)
        expected = Slots(model, None, 0, 8).join(prompts)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        first = Slots(model, None, 0, 8).resume(given)
        torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-4)
        for token in (31, 32):
            torch.testing.assert_close(rows.step([token] * 4), whole.step([token] * 4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [*attention.WAYS])
def test_a_model_in_training_attends_afterwards_as_before(way: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    attention.use_packed(model, way)
    norm, feed = (model.get_submodule(f"model.layers.0.{name}") for name in ("input_layernorm", "mlp"))
    forms = norm.forward.__func__, feed.forward.__func__
    with slots.attending(model):
        assert model.config._attn_implementation == slots.NAME
    assert model.config._attn_implementation == way
    assert (norm.forward.__func__, feed.forward.__func__) == forms
