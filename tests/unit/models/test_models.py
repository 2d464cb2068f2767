"""Saving, loading, adapting and merging give the same logits back, for every architecture and dtype."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.load import load_model, model_from
from tuneloop.models.merge import MergeCheck, logits, merge, prompt_ids
from tuneloop.models.save import save_model
from tuneloop.models.tokenizer import load_tokenizer, tokenizer_from

ARCHITECTURES = ("llama", "gpt2", "qwen3", "deepseek_v3", "mistral", "gemma3_text")
Make = Callable[..., Any]


def base_of(folder: Path, **options: Any) -> Base:
    return find_base(ModelConfig(base=str(folder), **options))


def adapted(base: Base, seed: int = 1, size: float = 0.3, **options: Any) -> Any:
    """The base with a LoRA whose B is random: an adapter that changes the answers."""
    torch.manual_seed(seed)
    model = get_peft_model(
        load_model(base, torch.float32), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, size)
    return model.eval()


def same(a: Any, b: Any, tokenizer: Any) -> None:
    batch = prompt_ids(tokenizer)
    assert torch.equal(logits(a, batch), logits(b, batch))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_saved_and_loaded_is_the_same(name: str, tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model(name)
    save_model(model, tiny_tokenizer, tmp_path / "m", stop_ids=[2, 0])
    base = base_of(tmp_path / "m")
    tokenizer, again = load_tokenizer(base), load_model(base, torch.float32)
    same(model, again, tokenizer)
    assert again.generation_config.eos_token_id == [0, 2]
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    assert (tmp_path / "m" / "chat_template.jinja").is_file()
    for text in ("The capital of France is Paris.", "法国的首都 12 345\n\n  x"):
        assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("name", ["llama", "deepseek_v3", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_saving_in_another_dtype_leaves_the_model_alone(
    name: str, dtype: torch.dtype, tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(model, tiny_tokenizer, tmp_path / "m", dtype=dtype)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert jsonl.read(tmp_path / "m" / "config.json")["dtype"] == str(dtype).removeprefix("torch.")
    again = model_from(tmp_path / "m", torch.float32)
    for key, value in again.named_parameters():
        assert torch.equal(value, before[key].to(dtype).float()), key


def test_large_models_are_sharded_and_tied_weights_written_once(
    tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    save_model(model, tiny_tokenizer, tmp_path / "m", max_shard_size="40KB", dtype=torch.bfloat16)
    index = jsonl.read(tmp_path / "m" / "model.safetensors.index.json")["weight_map"]
    assert len(set(index.values())) > 1
    assert "lm_head.weight" not in index
    assert model_from(tmp_path / "m", torch.float32).config.tie_word_embeddings


def test_a_full_disk_leaves_the_previous_folder_whole(tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    first = tiny_model("llama", seed=1)
    save_model(first, tiny_tokenizer, tmp_path / "m")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ModelError, match="previous folder is unchanged"):
            save_model(tiny_model("llama", seed=2), tiny_tokenizer, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    same(first, load_model(base_of(tmp_path / "m"), torch.float32), tiny_tokenizer)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_merged_is_adapter(name: str, model_folder: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    base = base_of(model_folder(name))
    model = adapted(base)
    adapters.save_adapter(model, tiny_tokenizer, base, tmp_path / "adapter", stop_ids=[2])
    check = merge(base, tmp_path / "adapter", tmp_path / "merged")
    assert check.passed
    assert check.effect > 100 * check.max_abs
    assert check.agreement == 1.0
    again = load_model(base_of(tmp_path / "merged"), torch.float32)
    batch = prompt_ids(tiny_tokenizer)
    torch.testing.assert_close(logits(again, batch), logits(model, batch), rtol=1e-3, atol=1e-3)
    assert again.generation_config.eos_token_id == 2
    reloaded = adapters.attach(load_model(base, torch.float32), tmp_path / "adapter", base)
    same(model, reloaded, tiny_tokenizer)


@pytest.mark.parametrize("name", ["llama", "gpt2", "deepseek_v3"])
def test_merging_in_bf16_reports_its_rounding(
    name: str, model_folder: Make, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    base = base_of(model_folder(name))
    adapters.save_adapter(adapted(base), tiny_tokenizer, base, tmp_path / "adapter")
    check = merge(base, tmp_path / "adapter", tmp_path / "merged", dtype=torch.bfloat16)
    assert check.merge_error < 1e-3
    assert check.reload_error == 0.0
    assert 0 < check.kl < 0.1 * check.effect_kl
    assert jsonl.read(tmp_path / "merged" / "tuneloop.json")["merge_check"]["dtype"] == "bfloat16"


def test_an_adapter_that_rounding_drowns_is_said(model_folder: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    base = base_of(model_folder())
    adapters.save_adapter(adapted(base, size=1e-5), tiny_tokenizer, base, tmp_path / "adapter")
    check = merge(base, tmp_path / "adapter", tmp_path / "merged", dtype=torch.bfloat16)
    assert check.drowned
    assert "dtype fp32" in str(check)


def test_a_merge_that_lost_the_adapter_is_refused(
    model_folder: Make, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(model_folder())
    model = adapted(base)
    adapters.save_adapter(model, tiny_tokenizer, base, tmp_path / "adapter")
    monkeypatch.setattr(
        type(model.base_model), "merge_and_unload", lambda self, **_: self.unload()
    )  # a merge that forgets
    with pytest.raises(ModelError, match="was not kept"):
        merge(base, tmp_path / "adapter", tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_check_fails_on_each_error_alone() -> None:
    good = MergeCheck(6, 100, "bfloat16", 0.0, 0.0, 0.1, 1.0, 1e-4, 1.0, 5.0, 1.0)
    assert good.passed
    for change in ({"merge_error": 0.01}, {"reload_error": 0.01}, {"kl": 0.1}):
        assert not replace(good, **change).passed  # pyright: ignore[reportArgumentType]


def test_an_adapter_for_another_base_names_both(model_folder: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    base, other = base_of(model_folder("llama")), base_of(model_folder("llama", 7))
    adapters.save_adapter(adapted(base), tiny_tokenizer, base, tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"llama-0.*llama-7"):
        merge(other, tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "adapter" / "tuneloop.json").unlink()  # without our record the shapes decide
    adapters.attach(load_model(other, torch.float32), tmp_path / "adapter", other)
    gpt2 = base_of(model_folder("gpt2"))
    with pytest.raises(ModelError, match="does not fit 'gpt2-0'"):
        adapters.attach(load_model(gpt2, torch.float32), tmp_path / "adapter", gpt2)


def test_an_adapter_of_another_width_or_with_nan_is_refused(
    model_folder: Make, tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    base = base_of(model_folder())
    model = adapted(base)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "lora_B" in name)[0] = float("nan")
    adapters.save_adapter(model, tiny_tokenizer, base, tmp_path / "nan")
    with pytest.raises(ModelError, match="not finite"):
        adapters.attach(load_model(base, torch.float32), tmp_path / "nan", base)
    save_model(tiny_model("llama", hidden_size=64), tiny_tokenizer, tmp_path / "wide")
    wide = base_of(tmp_path / "wide")
    adapters.save_adapter(adapted(base), tiny_tokenizer, base, tmp_path / "foreign")
    (tmp_path / "foreign" / "tuneloop.json").unlink()
    with pytest.raises(ModelError, match=r"is \(32, 4\) there, the base needs \(64, 4\)"):
        adapters.attach(load_model(wide, torch.float32), tmp_path / "foreign", wide)


def test_an_adapter_with_pickle_or_imports_is_refused(model_folder: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    base = base_of(model_folder())
    folder = tmp_path / "adapter"
    adapters.save_adapter(adapted(base), tiny_tokenizer, base, folder)
    config = jsonl.read(folder / "adapter_config.json")
    for change in ({"auto_mapping": {"parent_library": "evil.module"}}, {"megatron_config": {"x": 1}}):
        jsonl.write(folder / "adapter_config.json", {**config, **change})
        with pytest.raises(ModelError, match="import a module"):
            adapters.check_belongs(folder, base)
    jsonl.write(folder / "adapter_config.json", config)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        adapters.check_belongs(folder, base)


def test_the_template_of_an_adapter_counts_only_as_it_was_trained(
    model_folder: Make, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "out" / "adapter"
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0]['content'] }}")
    base = base_of(model_folder(), chat_template=str(template))
    tokenizer = load_tokenizer(base)
    adapters.save_adapter(adapted(base), tokenizer, base, folder)
    jsonl.write(tmp_path / "run" / "run.json", {"stage": "tune"})
    found = base_of(tmp_path / "run")
    assert found.adapter == folder
    assert load_tokenizer(found).chat_template == "{{ messages[0]['content'] }}"
    assert found.digest != base.digest
    assert found.weights_digest == base.weights_digest
    same(adapters.load_with_adapter(found, torch.float32), adapted(base), tokenizer)
    (folder / "chat_template.jinja").write_text("{{ evil }}")
    with pytest.raises(ModelError, match="not the template"):
        base_of(tmp_path / "run")


def test_a_run_with_a_model_is_a_base(model_folder: Make, tmp_path: Path) -> None:
    (tmp_path / "run" / "out").mkdir(parents=True)
    jsonl.write(tmp_path / "run" / "run.json", {"stage": "tune"})
    with pytest.raises(ModelError, match="no model to load"):
        base_of(tmp_path / "run")
    (tmp_path / "run" / "out" / "model").symlink_to(model_folder())
    assert base_of(tmp_path / "run").digest == base_of(model_folder()).digest
    assert tokenizer_from(base_of(tmp_path / "run").path).chat_template


def test_an_adapter_finds_its_base_from_any_folder(
    model_folder: Make, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_folder().parent)
    base = find_base(ModelConfig(base=model_folder().name))
    adapters.save_adapter(adapted(base), tiny_tokenizer, base, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    assert base_of(tmp_path / "adapter").weights_digest == base.weights_digest


def test_an_adapter_on_a_new_model_draws_the_same_weights_again(
    architecture: Make, tokenizer_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    config = ModelConfig(architecture=architecture("llama", initializer_range=0.2), tokenizer=str(tokenizer_folder))
    base = find_base(config)
    torch.manual_seed(0)
    model: Any = get_peft_model(
        load_model(base, torch.float32, seed=5), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    ).eval()
    adapters.save_adapter(model, tiny_tokenizer, base, tmp_path / "adapter", seed=5)
    found = base_of(tmp_path / "adapter")
    same(adapters.load_with_adapter(found, torch.float32), model, tiny_tokenizer)
    assert merge(found, tmp_path / "adapter", tmp_path / "merged").passed
