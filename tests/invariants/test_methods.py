"""Every tuning method and its special options, through the whole stage: learnt, saved, merged, resumed to the bit.

The methods come from the family and so cover a new plug-in; tests/conformance.py knows the options for tiny models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from choices import CHOICES, METHODS, REFUSED, SPECIAL, VARIANTS, rate_of
from conformance import conform, on_another_base
from safetensors.torch import load_file
from toy import conversations, lines_of, tune_in

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.core.runs import Run
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import config_of, model_from
from tuneloop.models.merge import logits, prompt_ids
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.track import metrics
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.memory import trainable_parameters
from tuneloop.tune.methods import FAMILY, Setting
from tuneloop.tune.optimizer import MasterOptimizer

Folder = Callable[..., Path]
EVERYWHERE = [(key, "qwen3_moe" if key in VARIANTS else "gpt2") for key in CHOICES]
"""Every choice where it has most to do: GPT-2 has transposed matrices, a tied head, and dropout in its config."""


def saved(folder: Path, adapter: bool) -> dict[str, torch.Tensor]:
    return load_file(folder / (adapters.WEIGHTS if adapter else "model.safetensors"))


def needs_its_package(key: str) -> Any:
    kind = FAMILY.make(CHOICES[key])
    if kind.quantization:
        pytest.importorskip("bitsandbytes")
    return kind


@pytest.mark.parametrize("key", SPECIAL)
def test_special_options_conform(key: str, model_folder: Folder, tmp_path: Path) -> None:
    needs_its_package(key)
    conform(model_folder("gpt2"), key, tmp_path, steps=20)


@pytest.mark.parametrize(("key", "name"), EVERYWHERE)
def test_resumed_is_uninterrupted(
    key: str, name: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_its_package(key)
    model = {"base": str(model_folder(name))}
    values: dict[str, Any] = {
        "method": CHOICES[key], "learning_rate": rate_of(key) / 10, "steps": 5, "batch_size": 5, "save_every": 2,
        "val": conversations(4, 50), "validation": {"every": 2},
    }  # fmt: skip
    first, whole = tune_in(tmp_path / "whole", model, **values)
    step, done = MasterOptimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt  # in the middle of a step, as a second ^C
        step(*arguments)

    monkeypatch.setattr(MasterOptimizer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        tune_in(tmp_path / "broken", model, **values)
    monkeypatch.undo()
    (broken,) = [Run.open(path) for path in (tmp_path / "broken").iterdir()]
    assert (broken.out / "checkpoints" / "step-0000002").is_dir()
    torch.rand(3)  # whatever happened in between must not matter
    _, again = tune_in(tmp_path / "broken", model, run=broken, **values)
    one, two = (saved(tuned.folder, whole.adapter) for tuned in (whole, again))
    assert one.keys() == two.keys() and all(torch.equal(one[tensor], two[tensor]) for tensor in one)
    assert lines_of(broken.path) == lines_of(first.path)


@pytest.mark.parametrize(("key", "name"), [*EVERYWHERE, ("full", "qwen3_moe"), ("lora", "qwen3_moe")])
def test_bf16(key: str, name: str, model_folder: Folder, tmp_path: Path) -> None:
    """bf16 is exported as trained (the stage itself compares), and an exported adapter can be trained further."""
    kind = needs_its_package(key)
    model = {"base": str(model_folder(name)), "dtype": "bf16"}
    values: dict[str, Any] = {"learning_rate": rate_of(key), "batch_size": 12, "method": CHOICES[key]}
    run, first = tune_in(tmp_path, model, steps=8, **values)
    losses = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert {tensor.dtype for tensor in saved(first.folder, first.adapter).values()} == {torch.bfloat16}
    if not first.adapter:
        return
    if on_another_base(kind):  # what was exported is an ordinary LoRA of twice the rank
        ((method, options),) = CHOICES[key].items()
        twice = {"rank": 8, "alpha": 8 * (2**0.5 if options.get("rslora") else 2), "init": "kaiming"}
        values["method"] = {method: {**options, **twice}}
    if key == "prefix, projected":  # and this an ordinary prefix
        values["method"] = {"prefix": {"tokens": 6}}
    further, _ = tune_in(tmp_path, {**model, "adapter": str(first.folder)}, steps=2, **values)
    start = metrics.read(further.path / "metrics.jsonl")[0]["loss"]
    assert start < losses[0] and start == pytest.approx(losses[-1], rel=0.25)


def counted(method: Any, folder: Path) -> int:
    """What a method says it trains, from the config alone; the same as of the loaded model."""
    base = find_base(ModelConfig(base=str(folder)))
    config = TuneConfig.model_validate({"method": method})
    count = trainable_parameters(config, config_of(base))
    assert count == config.method.count(config.method.apply(model_from(base.path, torch.float32))) > 0
    return count


@pytest.mark.parametrize("method", FAMILY.names())
def test_counted_on_the_meta_device(method: str, model_folder: Folder) -> None:
    for name in ("llama", "gpt2"):
        counted(METHODS[method], model_folder(name))


def test_counted_by_hand(model_folder: Folder) -> None:
    """Qwen2: hidden 32, two key/value heads of 8, two layers, inner width 48."""
    of_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + (32 + 16 + 16) + 2 * 32
    expected: list[tuple[Any, int]] = [
        ({"freeze": {"layers": 1}}, of_layer), ("bitfit", 2 * 64),
        ({"sparse": {"fraction": 0.05}}, round(0.05 * 2 * (of_layer - 64 - 64))),
        ({"adapter": {"reduction": 4}}, 4 * (2 * 32 * 8 + 8 + 32)), ({"prompt": {"tokens": 6}}, 6 * 32),
        ({"prefix": {"tokens": 6}}, 6 * 2 * 2 * 16), (CHOICES["prefix, text"], 20 * 64),
        (CHOICES["prefix, projected"], 6 * 16 + 16 * 16 + 16 + 17 * 64),
    ]  # fmt: skip
    for method, count in expected:
        assert counted(method, model_folder("qwen2")) == count


def test_virtual_tokens_start_as_the_text(model_folder: Folder, tmp_path: Path) -> None:
    """Without a step taken, a prompt or prefix of a text is that text before every row."""
    base = find_base(ModelConfig(base=str(model_folder())))
    tokenizer, batch = load_tokenizer(base), prompt_ids(load_tokenizer(base))
    text = "Add the two numbers. 加"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    model = model_from(base.path, torch.float32)
    expected = logits(model, [[*ids, *row] for row in batch])
    keep = torch.cat([torch.tensor([False] * len(ids) + [True] * len(row)) for row in batch])
    for method in ("prompt", "prefix"):
        choice = TuneConfig.model_validate({"method": {method: {"text": text, "tokens": len(ids)}}}).method
        trained = choice.apply(model_from(base.path, torch.float32))
        choice.initialise(trained, Setting(tokenizer, 7, lambda _: ()))
        rows = [trained(input_ids=torch.tensor([row])).logits[0, -len(row) :] for row in batch]
        torch.testing.assert_close(torch.cat(rows), expected[keep], rtol=1e-4, atol=1e-4)
    short = TuneConfig.model_validate({"method": {"prompt": {"text": text, "tokens": 3}}}).method
    with pytest.raises(ModelError, match=rf"text has {len(ids)} tokens and tokens is 3: write tokens: {len(ids)}"):
        short.initialise(short.apply(model), Setting(tokenizer, 7, lambda _: ()))


def test_an_adapter_knows_in_which_bits_its_base_was_held(model_folder: Folder, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    _, tuned = tune_in(tmp_path, {"base": str(model_folder())}, method="qlora", steps=2)
    record = adapters.read_record(tuned.folder)
    assert record is not None and record.quantization == "nf4"
    served = adapters.load_with_adapter(find_base(ModelConfig(base=str(tuned.folder))), torch.float32)
    assert any(type(module).__name__ == "Linear4bit" for module in served.modules())
    path = tuned.folder / adapters.RECORD
    value = jsonl.read(path)
    jsonl.write(path, {**value, "base": {**value["base"], "quantization": "int3"}})
    with pytest.raises(ModelError, match="held in 'int3'"):
        adapters.read_record(tuned.folder)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"lora": {"targets": ["q_prj"]}}, r"'q_prj' fits no.*mean 'q_proj'.*layers to adapt are q_proj, k"),
        ({"lora": {"targets": "q_proj"}}, r"'q_proj' fits no layer"),  # a text is a regular expression for whole names
        ({"lora": {"targets": "(" }}, r"no regular expression"),
        ({"lora": {"layers": [2]}}, r"no layer 2, only 0 to 1"),
        ({"lora": {"targets": ["head"], "modules_to_save": ["hat"]}}, r"no module 'hat'"),
        ({"lora": {"rank_pattern": {"up": 3}}}, r"rank_pattern: 'up' fits none of the 14"),
        ({"lora": {"init": "pissa", "rank": 40}}, r"pissa takes rank 40 out of a matrix of 32 × 32"),
        ({"ia3": {"targets": ["key"]}}, r"targets: 'key' fits no layer"),
        ({"dora": {"layers": []}}, r"none of them stands in the layers \[\]"),
    ],
)  # fmt: skip
def test_what_fits_nothing_is_named(method: Any, words: str, tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match=re.compile(words)):
        FAMILY.make(method).apply(tiny_model())


@pytest.mark.parametrize("name", [name for method, name in REFUSED if method == "dora"])
def test_the_advice_of_a_refusal_works(name: str, tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ModelError) as refusal:
        FAMILY.make("dora").apply(tiny_model(name))
    targets = str(refusal.value).partition("targets: [")[2].rstrip("]").split(", ")
    method = FAMILY.make({"dora": {"targets": targets}})
    assert method.count(method.apply(tiny_model(name))) > 0


def test_ia3_says_that_stacked_experts_have_no_factors(tiny_model: Callable[..., Any]) -> None:
    method = FAMILY.make("ia3")
    said = [method.words(method.apply(tiny_model(name))) for name in ("llama", "qwen3_moe", "deepseek_v3")]
    assert said[0] == "trained: factors for 4 key or value layers, 2 feed-forwards"
    assert said[1].startswith("trained: factors for 4 key or value layers, 0 feed-forwards; stacked experts get none")
    assert "2 feed-forwards; stacked experts get none" in said[2]  # the dense first layer, and a shared expert
