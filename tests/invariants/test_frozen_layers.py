"""Frozen layers from a file = through all layers: the whole stage, with and without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import conversations, lines_of, tune_in

from tuneloop.core.errors import TrainingError
from tuneloop.core.runs import Run
from tuneloop.forward.trunk import Trunk
from tuneloop.tune import trunk as stage
from tuneloop.tune.optimizer import MasterOptimizer

Folder = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
LORA = {"lora": {"rank": 4, "layers": [1], "init": "orthogonal"}}
METHODS: dict[str, Any] = {"freeze": {"freeze": {"layers": 1}}, "lora": LORA, "dora": {"dora": {"layers": [1]}}}
RTOL = 1e-3
QUIET: Any = {"objective": {"dropout": 0.0}}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files lie."""
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunks"


def tuned(root: Path, base: Path, cached: bool | None, run: Run | None = None, **config: Any) -> Run:
    memory = {"trunk_cache": cached, "token_budget": 60, **config.pop("memory", {})}
    values = {"method": METHODS["freeze"], "steps": 9, "validation": {"every": 3}, **config}
    model = {"base": str(base), "dtype": "fp32"}
    return tune_in(root, model, val=conversations(5, 40), memory=memory, run=run, **values)[0]


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_file(next(run.out.glob("*/*.safetensors")))


def check_alike(one: Run, two: Run) -> None:
    lines, others = lines_of(one.path), lines_of(two.path)
    assert len(lines) == len(others)
    for line, other in zip(lines, others, strict=True):
        assert line.keys() == other.keys()
        for name in line:
            assert line[name] == pytest.approx(other[name], rel=RTOL, abs=1e-5), (line["step"], name)
    ours, theirs = weights_of(one), weights_of(two)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=RTOL, atol=1e-3)


def check_equal(one: Run, two: Run) -> None:
    assert lines_of(one.path) == lines_of(two.path)
    ours, theirs = weights_of(one), weights_of(two)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "falcon", "mamba2"])
def test_same_curves_and_weights(
    name: str, method: str, model_folder: Folder, tmp_path: Path, capsys: Captured
) -> None:
    values = {"method": METHODS[method], "early_stopping": {"patience": 2}}
    without = tuned(tmp_path / "a", model_folder(name), False, **values)
    assert "frozen" not in capsys.readouterr().err
    with_it = tuned(tmp_path / "b", model_folder(name), True, **values)
    assert "layers 0: what they give is computed once" in " ".join(capsys.readouterr().err.split())
    check_alike(with_it, without)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_bit_equal_where_batches_are_alike(name: str, model_folder: Folder, tmp_path: Path) -> None:
    """Each row alone: then the file was made by the very products that a step does."""
    values: Any = {"memory": {"token_budget": 8}, **(QUIET if name == "gpt2" else {})}
    runs = [tuned(tmp_path / str(cached), model_folder(name), cached, **values) for cached in (False, True)]
    check_equal(runs[0], runs[1])


def test_checkpointed_activations(model_folder: Folder, tmp_path: Path) -> None:
    runs = [
        tuned(tmp_path / str(cached), model_folder(), cached, memory={"gradient_checkpointing": True})
        for cached in (False, True)
    ]
    check_alike(runs[0], runs[1])


@pytest.mark.parametrize(
    "objective",
    [{"keep": {"prompts": "unused.jsonl", "rows": 3}}, {"label_smoothing": 0.1}],
    ids=["keep", "smoothing"],
)
@pytest.mark.parametrize("method", ["freeze", "lora"])
def test_with_other_objectives(objective: Any, method: str, model_folder: Folder, tmp_path: Path) -> None:
    if "keep" in objective:
        (tmp_path / "unused.jsonl").write_text("")
        objective = {"keep": {**objective["keep"], "prompts": str(tmp_path / "unused.jsonl")}}
    values: Any = {"objective": objective, "method": METHODS[method], "prompts": conversations(6, 80)}
    check_alike(*(tuned(tmp_path / str(cached), model_folder(), cached, **values) for cached in (False, True)))


def test_experts_below_the_border(model_folder: Folder, tmp_path: Path, capsys: Captured) -> None:
    """Only the upper router can be watched; its part of the loss and so the gradient stays as it was."""
    values: Any = {"moe": {"router_loss": 0.5}}
    runs = [tuned(tmp_path / str(cached), model_folder("qwen3_moe"), cached, **values) for cached in (True, False)]
    assert "1 of 2 routers are watched" in capsys.readouterr().err
    lines, others = (lines_of(run.path) for run in runs)
    for line, other in zip(lines, others, strict=True):
        for column in ("loss", "gradient_norm"):
            assert line[column] == pytest.approx(other[column], rel=1e-3), column
    check = [(run.out / "expert_load.json").is_file() for run in runs]
    assert check == [True, True]


def test_resumed_is_uninterrupted_even_without_the_file(
    model_folder: Folder, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"save_every": 2, "method": {"lora": {**LORA["lora"], "dropout": 0.2}}}
    whole = tuned(tmp_path / "whole", model_folder(), True, **values)
    file = next(kept.glob("*/hidden.bin"))
    content = file.read_bytes()
    step, done = MasterOptimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        if done == 5:
            raise KeyboardInterrupt
        done += 1
        step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MasterOptimizer, "step", killed)
        tuned(tmp_path / "broken", model_folder(), True, **values)
    file.unlink()
    broken = Run.open(next((tmp_path / "broken").iterdir()))
    tuned(tmp_path / "broken", model_folder(), True, run=broken, **values)
    assert file.read_bytes() == content
    check_equal(broken, whole)


def test_another_run_takes_the_file(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    one = tuned(tmp_path / "a", model_folder(), True)
    monkeypatch.setattr(Trunk, "fill", lambda *_, **__: pytest.fail("it is there"))
    capsys.readouterr()
    check_equal(tuned(tmp_path / "b", model_folder(), True), one)
    assert "is known from an earlier run" in " ".join(capsys.readouterr().err.split())
    tuned(tmp_path / "c", model_folder(), True, method=LORA, learning_rate=1e-3)  # as in a sweep
    with pytest.raises(pytest.fail.Exception, match="it is there"):
        tuned(tmp_path / "d", model_folder(seed=1), True)


@pytest.mark.parametrize("damage", ["shorter", "other"])
def test_a_damaged_file_is_made_again(damage: str, model_folder: Folder, tmp_path: Path, kept: Path) -> None:
    one = tuned(tmp_path / "a", model_folder(), True)
    file = next(kept.glob("*/hidden.bin"))
    content = file.read_bytes()
    file.write_bytes(content[:-64] if damage == "shorter" else bytes(len(content)))
    check_equal(tuned(tmp_path / "b", model_folder(), True), one)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "config", "why"),
    [
        ("llama", {"method": "full"}, "its lowest layer is trained"),
        (
            "llama",
            {"method": {"freeze": {"layers": 1, "embeddings": True, "head": True}}},
            "below its layers is trained",
        ),
        ("llama", {"method": {"prompt": {"tokens": 4}}}, "below its layers is trained"),
        ("llama", {"method": {"prefix": {"tokens": 4}}}, "below its layers is trained"),
        ("llama", {"objective": {"neftune": 5.0}}, "noise or dropout"),
        ("gpt2", {}, "noise or dropout"),
        ("llama", {"memory": {"trunk_gib": 1e-6}}, "trunk_gib is 1e-06"),
    ],
)
def test_asked_for_and_not_possible(
    name: str, config: dict[str, Any], why: str, model_folder: Folder, tmp_path: Path, kept: Path
) -> None:
    with pytest.raises(TrainingError, match=rf"tune\.memory\.trunk_cache: .*{why}"):
        tuned(tmp_path / "a", model_folder(name), True, **config)
    assert not kept.exists()
    tuned(tmp_path / "b", model_folder(name), None, **config)
    assert not kept.exists()


def test_by_itself_only_where_it_saves(
    model_folder: Folder,
    tmp_path: Path,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    tuned(tmp_path / "a", model_folder(), None)
    assert not kept.exists() and "saves too little" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(stage, "SECONDS", 0.0)
    monkeypatch.setattr(stage, "matmul_rate", lambda *_: 1e6)  # a slow machine
    tuned(tmp_path / "b", model_folder(), None, steps=3, validation={"every": 3})  # each row once
    assert not kept.exists() and "(1.0 passes over each row)" in " ".join(capsys.readouterr().err.split())
    tuned(tmp_path / "c", model_folder(), None)
    assert len(list(kept.iterdir())) == 1


def test_a_full_disk(
    model_folder: Folder,
    tmp_path: Path,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trunk, "fill", full)
    monkeypatch.setattr(stage, "_pays", lambda *_: True)
    assert tuned(tmp_path / "a", model_folder(), None).done
    assert "could not be written ([Errno 28] No space left on device)" in " ".join(capsys.readouterr().err.split())
    assert not list(kept.iterdir())
