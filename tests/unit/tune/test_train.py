"""The stage: rows that were lost are listed, the export is checked against what was trained, adapters are continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import conversations, tune_in

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError, ModelError
from tuneloop.core.runs import Run
from tuneloop.forward import objective as forward
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.track import metrics
from tuneloop.tune import export
from tuneloop.tune.memory import trainable_parameters

Folder = Callable[..., Path]


def test_an_adapter_with_its_record(model_folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = Example((Message("user", "no answer"),), Origin("made.jsonl", 99))
    run, tuned = tune_in(
        tmp_path, {"base": str(model_folder())}, train=[*conversations(12), lost], val=conversations(4, 50)
    )
    assert run.done and tuned.adapter and tuned.folder == run.out / "adapter"
    drops = list(jsonl.read_lines(run.out / "dropped.jsonl"))
    assert [(drop["origin"]["row"], drop["step"]) for drop in drops] == [(99, "render")]
    record = adapters.read_record(tuned.folder)
    assert (
        record is not None and record.weights_digest == find_base(ModelConfig(base=str(model_folder()))).weights_digest
    )
    lines = metrics.read(run.path / "metrics.jsonl")
    assert len(lines) == 5 and lines[-1]["loss"] < lines[0]["loss"] and "val_loss" in lines[-1]
    said = " ".join(capsys.readouterr().err.split())
    for part in ("12 of 13 rows", "rows are packed", "fp32: asked for", "5 of 4 examples", "exported"):
        assert part in said, part


def tampered(name: str, change: Callable[[torch.Tensor], torch.Tensor], write: Any) -> Any:
    """A writer of exports whose result something else changes afterwards."""

    def writing(*arguments: Any, **options: Any) -> None:
        write(*arguments, **options)
        path = next(a for a in arguments if isinstance(a, Path)) / name
        tensors = load_file(path)
        key = max(tensors)
        tensors[key] = change(tensors[key])
        save_file(tensors, path, {"format": "pt"})

    return writing


@pytest.mark.parametrize(
    "change", [torch.zeros_like, lambda x: x + (torch.arange(x.numel()) == 3).view(x.shape) * 1e-6]
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_export_that_is_not_what_was_trained_fails(
    method: str, change: Any, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "lora":
        broken = tampered("adapter_model.safetensors", change, adapters.save_adapter)
        monkeypatch.setattr(adapters, "save_adapter", broken)
    else:
        monkeypatch.setattr(export, "save_model", tampered("model.safetensors", change, export.save_model))
    with pytest.raises(ModelError, match=r"1 of .* exported weights are not the trained ones"):
        tune_in(tmp_path, {"base": str(model_folder())}, method=method, steps=2)
    (run,) = [Run.open(path) for path in tmp_path.iterdir()]
    assert run.status == "failed" and not run.done
    monkeypatch.undo()
    again, tuned = tune_in(tmp_path, {"base": str(model_folder())}, method=method, steps=2, run=run)
    assert again.done and tuned.progress.step == 2, "the run is continued from its last step, and exported rightly"


def test_an_export_that_computes_something_else_fails(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_another_base(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        with torch.no_grad():
            forward.core_of(model).model.norm.weight.mul_(1.5)  # type: ignore[union-attr]
        return model

    load = adapters.load_with_adapter
    monkeypatch.setattr(adapters, "load_with_adapter", with_another_base)
    with pytest.raises(ModelError, match="give another loss than the trained ones"):
        tune_in(tmp_path, {"base": str(model_folder())}, steps=1)


def test_training_goes_on_from_an_adapter(model_folder: Folder, tmp_path: Path) -> None:
    base = {"base": str(model_folder())}
    _, first = tune_in(tmp_path, base)
    start = {**base, "adapter": str(first.folder)}
    run, second = tune_in(tmp_path, start, learning_rate=1e-4)
    losses = [row["loss"] for row in metrics.read(run.path / "metrics.jsonl")]
    first_losses = [row["loss"] for row in metrics.read(first.folder.parents[1] / "metrics.jsonl")]
    assert losses[0] < first_losses[0] * 0.95, "it starts where the first one ended"
    before, after = (load_file(tuned.folder / "adapter_model.safetensors") for tuned in (first, second))
    assert before.keys() == after.keys()
    assert all(
        not torch.equal(before[key], after[key]) and (before[key] - after[key]).abs().max() < 0.01 for key in before
    )
    found = find_base(ModelConfig.model_validate({**base, "adapter": str(second.folder)}))
    assert adapters.load_with_adapter(found, torch.float32) is not None


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"lora": {"rank": 8, "alpha": 8}}, r"lora\.rank is 8, but the adapter .* has 4"),
        ({"lora": {"rank": 4, "alpha": 9}}, r"lora\.alpha is 9"),
        ({"lora": {"rank": 4, "alpha": 8, "dropout": 0.5}}, r"lora\.dropout is 0\.5, but the adapter .* has 0"),
        (
            {"lora": {"rank": 4, "alpha": 8, "targets": ["q_proj"]}},
            r"trains other parameters than .* in all 24.*q_proj",
        ),
        ("full", "'full' trains whole models. Merge the adapter first"),
    ],
)
def test_options_that_the_adapter_would_ignore(method: Any, words: str, model_folder: Folder, tmp_path: Path) -> None:
    base = {"base": str(model_folder())}
    _, first = tune_in(tmp_path / "a", base, steps=1)
    with pytest.raises(ModelError, match=words):
        tune_in(tmp_path / "b", {**base, "adapter": str(first.folder)}, method=method, steps=1)


def test_validation_rows_are_spread_and_fixed(model_folder: Folder, tmp_path: Path) -> None:
    """The first rows of val.jsonl are rows of the first source only."""
    val = conversations(60, 100)
    asked: list[list[str]] = []

    def scorer(
        model: object, renderer: object, nll: object, rows: Sequence[Example]
    ) -> tuple[dict[str, Any], list[Any]]:
        asked.append([row.id for row in rows])
        return {}, []

    losses = []
    for number, given in enumerate((val, val[::-1])):
        run, _ = tune_in(
            tmp_path / str(number), {"base": str(model_folder())}, val=given, scorer=scorer, seed=number,
            learning_rate=1e-12, steps=2, validation={"every": 1, "rows": 12, "generate": 6},
        )  # fmt: skip
        losses.append(next(row["val_loss"] for row in metrics.read(run.path / "metrics.jsonl") if "val_loss" in row))
    places = [row.id for row in val]
    first = sorted(places.index(id_) for id_ in asked[0])
    assert len(first) == 6 and max(first) > 20
    assert all(sorted(rows) == sorted(asked[0]) for rows in asked), "at every step, with any seed, in any order"
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_early_stopping_needs_validation_rows(model_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="early_stopping needs validation rows"):
        tune_in(tmp_path, {"base": str(model_folder())}, early_stopping={"patience": 1})


def test_trained_parameters_are_counted_without_memory(model_folder: Folder) -> None:
    from tuneloop.models.load import config_of
    from tuneloop.tune.config import TuneConfig

    base = find_base(ModelConfig(base=str(model_folder())))
    model = load_model(base, torch.float32)
    config = config_of(base)
    full = trainable_parameters(TuneConfig.model_validate({"method": "full"}), config)
    assert full == sum(p.numel() for p in model.parameters())
    lora = TuneConfig.model_validate({"method": {"lora": {"rank": 2}}})
    adapted = lora.method.apply(model)
    assert trainable_parameters(lora, config) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
