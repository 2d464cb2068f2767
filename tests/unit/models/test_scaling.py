from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import tune_in

from tuneloop.core.errors import ModelError
from tuneloop.models.adapters import load_with_adapter
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.models.scaling import load_scalable, save_scaled

IDS = torch.tensor([[5, 9, 14, 30, 7]])
METHODS: list[dict[str, Any]] = [
    {"lora": {"rank": 4, "alpha": 8}}, {"lora": {"rank": 4, "rslora": True, "targets": ["auto", "embeddings"]}},
    {"lora": {"rank": 4, "modules_to_save": ["head"]}}, {"lora": {"rank": 4, "init": "pissa"}},
    {"dora": {"rank": 4}}, {"ia3": {}}, {"adapter": {}}, {"full": {}}, {"bitfit": {}},
]  # fmt: skip


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_scale_0_is_the_base_and_scale_1_what_was_tuned(
    model_folder: Callable[..., Path], tmp_path: Path, method: dict[str, Any]
) -> None:
    folder = model_folder("qwen2")  # it has biases
    run, _ = tune_in(tmp_path, {"base": str(folder)}, method=method, steps=3)
    origin, tuned = find_base(ModelConfig(base=str(folder))), find_base(ModelConfig(base=str(run.path)))
    expected = logits(load_with_adapter(tuned, torch.float32))
    plain = logits(load_model(origin, torch.float32))
    scaled = load_scalable(tuned, origin, torch.float32)
    half = logits(scaled.to(0.5))
    assert torch.equal(logits(scaled.to(1)), expected)
    torch.testing.assert_close(logits(scaled.to(0)), plain, rtol=0, atol=1e-6)
    assert not torch.equal(plain, expected)
    assert 0 < float((half - plain).abs().max()) < 2 * float((expected - plain).abs().max())

    scaled.to(0.5)
    save_scaled(scaled, tuned, tmp_path / "half", None, [2])
    if tuned.adapter is None:
        again = load_model(find_base(ModelConfig(base=str(tmp_path / "half"))), torch.float32)
    else:
        again = load_with_adapter(find_base(ModelConfig(base=str(tmp_path / "half"))), torch.float32)
    torch.testing.assert_close(logits(again), half, rtol=0, atol=1e-6)


def test_the_update_of_lora_is_scaled_and_nothing_else(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from tuneloop.models.adapters import WEIGHTS

    run, _ = tune_in(tmp_path, {"base": str(model_folder("llama"))})
    tuned = find_base(ModelConfig(base=str(run.path)))
    scaled = load_scalable(tuned, tuned, torch.float32)
    scaled.to(0.5)
    save_scaled(scaled, tuned, tmp_path / "half", None, [])
    assert tuned.adapter is not None
    before, after = (load_file(path / WEIGHTS) for path in (tuned.adapter, tmp_path / "half"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value / 2 if "lora_B" in name else value)


def test_virtual_tokens_and_odd_scales_are_refused(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    base = {"base": str(model_folder("llama"))}
    run, _ = tune_in(tmp_path, base, method={"prompt": {"tokens": 4}}, steps=1)
    found = find_base(ModelConfig(base=str(run.path)))
    with pytest.raises(ModelError, match="Virtual"):
        load_scalable(found, found, torch.float32)
    run, _ = tune_in(tmp_path / "other", base, steps=1)
    found = find_base(ModelConfig(base=str(run.path)))
    with pytest.raises(ModelError, match=r"from 0 \(the base\) to 1"):
        load_scalable(found, found, torch.float32).to(1.5)
