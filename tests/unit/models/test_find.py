"""What a recipe may name as base, what is refused, and why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tuneloop.core import jsonl, recipe
from tuneloop.core.errors import MissingExtra, ModelError, RecipeError
from tuneloop.models import bases, cache
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model, model_from
from tuneloop.models.tokenizer import load_tokenizer

Make = Callable[..., Any]


@pytest.fixture
def folder(model_folder: Make, tmp_path: Path) -> Path:
    """A model folder of its own to break."""
    return Path(shutil.copytree(model_folder(), tmp_path / "model"))


def find(base: object, **options: Any) -> Any:
    return find_base(ModelConfig(base=str(base), **options))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        find(folder)


# -- the branch of the recipe -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: a\narchitecture: {model_type: llama}\ntokenizer: t", "exactly one of"),
        ("base: null", "exactly one of"),
        ("architecture: {hidden_size: 8}\ntokenizer: t", "model_type"),
        ("architecture: {model_type: llama}", "needs `tokenizer`"),
        ("base: a\ntokenizer: t", "goes with `architecture`"),
        ("architecture: {model_type: llama}\ntokenizer: t\nadapter: a", "existing model"),
        ("base: a\ndtype: int8", "dtype"),
        ("bases: a", "unknown key 'bases'"),
    ],
)
def test_impossible_recipes(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load(ModelConfig, recipe.parse_yaml(text, "r.yaml"))


@pytest.mark.parametrize("text", ["{}", "base: x/y\nrevision: v1", "architecture: {model_type: llama}\ntokenizer: t"])
def test_recipes_load_back_equal(text: str) -> None:
    config = recipe.load(ModelConfig, recipe.parse_yaml(text, "r.yaml"))
    assert recipe.load(ModelConfig, recipe.parse_yaml(recipe.dump(config), "s.yaml")) == config


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_custom_code_by_auto_map(folder: Path, name: str) -> None:
    jsonl.write(folder / name, {**jsonl.read(folder / name), "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    refused(folder, "auto_map")


def test_custom_code_by_file(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    refused(folder, "modeling_evil.py")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x04.")
    find(folder)  # beside safetensors it is never read
    (folder / "model.safetensors").unlink()
    refused(folder, "pickle")


def test_incomplete_folders(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "kept")
    refused(folder, "no tokenizer")
    (folder / "kept").rename(folder / "tokenizer.json")
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights")
    (folder / "config.json").write_text("{broken")
    refused(folder, "not valid JSON")
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "no causal language model"),
        ({"model_type": "vit", "architectures": None}, "no causal language model"),
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
    ],
)
def test_wrong_kinds_of_models(folder: Path, change: dict[str, Any], message: str) -> None:
    jsonl.write(folder / "config.json", {**jsonl.read(folder / "config.json"), **change})
    refused(folder, message)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="up_proj"):
        model_from(folder, torch.float32)


def test_broken_files_and_foreign_tokenizers(folder: Path) -> None:
    config = jsonl.read(folder / "config.json")
    jsonl.write(folder / "config.json", {**config, "vocab_size": 100})
    with pytest.raises(ModelError, match="400 tokens, the model only 100"):
        load_tokenizer(find(folder))
    with pytest.raises(ModelError, match=r"another shape|cannot be loaded"):
        load_model(find(folder), torch.float32)
    (folder / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        load_tokenizer(find(folder))


def test_names_that_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="did you mean 'embedded'"):
        find("embeded")
    with pytest.raises(ModelError, match="tuneloop bases get smollm2-135m-instruct"):
        find("smollm2-135m-instruct")
    with pytest.raises(ModelError, match="no base"):
        find("./models/nothing/here")
    with pytest.raises(ModelError, match="only hub ids"):
        find("smollm2-135m-instruct", revision="main")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        find(tmp_path / "x.txt")
    (tmp_path / "x.gguf").write_text("no gguf at all")
    with pytest.raises(ModelError, match="no GGUF file"):
        find(tmp_path / "x.gguf")


def test_hub_ids_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot be reached"):
        find("some-org/some-model")
    with pytest.raises(MissingExtra, match="modelscope"):
        find("modelscope:some-org/some-model")
    with pytest.raises(ModelError, match="did you mean"):
        bases.get("smollm2-135m")


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    jsonl.write(tmp_path / "adapter_config.json", {"base_model_name_or_path": "org/base"})
    refused(tmp_path, "org/base")


# -- digests ----------------------------------------------------------------------------------------------------------
def test_digests_follow_every_file_that_matters(folder: Path, tmp_path: Path) -> None:
    first = find(folder)
    assert find(folder) == first
    template = tmp_path / "other.jinja"
    template.write_text("{{ messages }}")
    assert find(folder, chat_template=str(template)).digest != first.digest
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    changed = find(folder)
    assert changed.digest != first.digest
    assert changed.weights_digest == first.weights_digest
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert find(folder).weights_digest != first.weights_digest


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"x" * (1 << 20))
    first = cache.file_digest(path)
    (known,) = (tmp_path / "cache" / "digests").iterdir()
    known.write_text("sha256:remembered")
    assert cache.file_digest(path) == "sha256:remembered"
    path.write_bytes(b"y" * (1 << 20))
    assert cache.file_digest(path) not in (first, "sha256:remembered")


# -- new models -------------------------------------------------------------------------------------------------------
def test_new_models_are_seeded_and_fit_the_tokenizer(architecture: Make, tokenizer_folder: Path) -> None:
    base = find_base(ModelConfig(architecture=architecture("llama"), tokenizer=str(tokenizer_folder)))
    state = torch.random.get_rng_state()
    one, two, other = (load_model(base, torch.float32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one.config.vocab_size == len(load_tokenizer(base)) == 400
    assert one.config.eos_token_id == load_tokenizer(base).eos_token_id
    low = load_model(base, torch.bfloat16, seed=1)
    assert torch.equal(low.lm_head.weight, one.lm_head.weight.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hiden_size": 8}, "no value 'hiden_size' .did you mean 'hidden_size'"),
        ({"vocab_size": 10}, "less than the tokenizer's 400"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"num_attention_heads": 5}, "cannot be built"),
    ],
)
def test_impossible_architectures(
    architecture: Make, tokenizer_folder: Path, changes: dict[str, Any], message: str
) -> None:
    values = {**architecture("llama"), **changes}
    if "num_attention_heads" in changes:
        del values["head_dim"]
    config = ModelConfig(architecture=values, tokenizer=str(tokenizer_folder))
    with pytest.raises(ModelError, match=message):
        load_model(find_base(config), torch.float32)
