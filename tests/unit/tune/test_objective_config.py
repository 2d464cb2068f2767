"""tune.objective through the whole stage: teachers, pairs, weights, dropout; what makes no sense is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from toy import conversations, job_of, lines_of, random_rows, tune_in

from tuneloop.core import docstrings, jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError, ModelError
from tuneloop.core.runs import Run
from tuneloop.models import adapters
from tuneloop.render.template import Renderer
from tuneloop.tune import optimizer
from tuneloop.tune import train as stage
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.loop import _step
from tuneloop.tune.objective import ObjectiveConfig
from tuneloop.tune.pairs import render_pairs
from tuneloop.tune.rows import render_rows

Folder = Callable[..., Path]
LORA: dict[str, Any] = {"lora": {"rank": 4, "alpha": 8}}


def pairs(count: int, start: int = 0) -> list[Example]:
    """Sums with the right answer and a wrong one."""
    rows = range(start, start + count)
    return [
        Example(
            (Message("user", f"Add {n} and 30."), Message("assistant", str(n + 30))), Origin("pairs.jsonl", n),
            rejected=(Message("assistant", f"I do not know {n}"),),
        )
        for n in rows
    ]  # fmt: skip


def prompts(count: int) -> list[Example]:
    """Questions without answers, and one text."""
    asked = [Example((Message("user", f"Sort the words: pear {n}"),), Origin("keep.jsonl", n)) for n in range(count)]
    return [*asked, Example((Message("text", "The capital of France is Paris."),), Origin("keep.jsonl", count))]


# -- the recipe --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "objective",
    [
        {"dft": True, "label_smoothing": 0.1},
        {"orpo": 0.1, "dft": True},
        {"orpo": 0.1, "distill": {"teacher": "embedded"}},
        {"label_smoothing": 0.1, "distill": {"teacher": "embedded"}},
    ],
)
def test_two_losses_of_an_answer_make_no_sense(objective: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="each of them says what the loss of an answer is; choose one"):
        ObjectiveConfig.model_validate(objective)


def test_every_field_is_documented_and_guarded() -> None:
    for branch in (ObjectiveConfig, *(ObjectiveConfig.model_fields[name].annotation for name in ("keep", "distill"))):
        branch = branch if isinstance(branch, type) else branch.__args__[0]  # type: ignore[union-attr]
        assert len(branch.model_fields) <= 12
        for name, info in branch.model_fields.items():
            assert docstrings.of_fields(branch).get(name), name
            if info.annotation in (int, float):
                with pytest.raises(ValidationError):
                    branch.model_validate(
                        {"teacher": "x", name: -1} if "teacher" in branch.model_fields else {name: -1}
                    )
    config = TuneConfig.model_validate({"objective": {"keep": {}, "neftune": 5}})
    assert TuneConfig.model_validate(config.model_dump(mode="json")) == config
    assert not config.model_copy(update={"objective": ObjectiveConfig(neftune=5.0)}).objective.differs


def test_early_stopping_on_the_preference() -> None:
    rule = {"early_stopping": {"metric": "preference_accuracy"}}
    assert TuneConfig.model_validate(rule).stop_metric == "preference_accuracy", "taken for one of evaluate.metrics"
    assert TuneConfig.model_validate({**rule, "objective": {"orpo": 0.1}}).stop_metric is None
    assert TuneConfig.model_validate({**rule, "objective": {"orpo": 0.1}}).early_stopping is not None


# -- keep --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [LORA, "full"], ids=["lora", "full"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_keep_holds_the_tuned_model_near_its_base(
    name: str, method: Any, model_folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = []
    for weight in (1e-9, 30.0):
        run, tuned = tune_in(
            tmp_path, {"base": str(model_folder(name))}, method=method, steps=12, prompts=prompts(10),
            objective={"keep": {"weight": weight, "rows": 11}, "dropout": 0.0}, learning_rate=5e-3,
        )  # fmt: skip
        lines = lines_of(run.path)
        assert lines[0]["keep_kl"] == pytest.approx(0, abs=1e-5), "before the first step both are the same"
        for line in lines:
            assert line["objective"] == pytest.approx(line["loss"] + weight * line["keep_kl"], rel=1e-5, abs=1e-6)
        apart.append(lines[-1]["keep_kl"])
        assert tuned.folder.is_dir()
    assert apart[1] < 0.2 * apart[0] and apart[0] > 0.01
    said = " ".join(capsys.readouterr().err.split())
    assert "11 rows are compared with the base" in said
    assert ("the adapter is switched off" if method != "full" else "a frozen copy of the trained weights") in said
    assert ("teachers" in said) == (method == "full"), "the memory estimate counts the copy"


def test_keep_is_resumed_bit_for_bit(model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "method": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}, "steps": 6, "save_every": 1,
        "objective": {"keep": {"rows": 3}, "neftune": 5.0}, "prompts": prompts(9),
    }  # fmt: skip
    base = {"base": str(model_folder("gpt2"))}
    whole, _ = tune_in(tmp_path / "whole", base, **options)
    take, done = optimizer.MasterOptimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt
        take(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(optimizer.MasterOptimizer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            tune_in(tmp_path / "broken", base, **options)
    (broken,) = [Run.open(path) for path in (tmp_path / "broken").iterdir()]
    resumed, _ = tune_in(tmp_path / "broken", base, run=broken, **options)
    assert lines_of(resumed.path) == lines_of(whole.path) and len(lines_of(whole.path)) == 6
    one, two = (run.out / "adapter" / "adapter_model.safetensors" for run in (whole, resumed))
    assert one.read_bytes() == two.read_bytes()


def test_a_base_that_the_method_changes_is_loaded_again(
    model_folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PiSSA does: what the adapter adds is taken from the frozen weights."""

    def changing(self: Any, model: Any, setting: Any) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "base_layer.weight" in name:
                    parameter.mul_(0.3)

    config = TuneConfig.model_validate({"method": LORA})
    monkeypatch.setattr(type(config.method), "initialise", changing)
    monkeypatch.setattr(stage, "check", lambda *_: None)
    run, _ = tune_in(
        tmp_path, {"base": str(model_folder())}, objective={"keep": {"rows": 4}}, prompts=prompts(5), steps=1
    )
    assert "loaded a second time" in " ".join(capsys.readouterr().err.split())
    assert lines_of(run.path)[0]["keep_kl"] > 0.1, "it is compared with the base, not with what the method made of it"


def test_keep_without_rows_that_can_be_rendered(model_folder: Folder, tmp_path: Path) -> None:
    odd = [Example((Message("user", "q"), Message("text", "prose")), Origin("x", 0))]
    with pytest.raises(DataError, match=r"keep\.prompts: none of 1 rows can be rendered, e\.g\.: prose"):
        tune_in(tmp_path, {"base": str(model_folder())}, objective={"keep": {}}, prompts=odd)


# -- distill -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("direction", ["forward", "reverse", "js"])
def test_the_student_comes_nearer_to_its_teacher(direction: str, model_folder: Folder, tmp_path: Path) -> None:
    objective = {"distill": {"teacher": str(model_folder("gpt2")), "mix": 0.9, "direction": direction}}
    run, _ = tune_in(tmp_path, {"base": str(model_folder())}, method="full", objective=objective, steps=15)
    lines = lines_of(run.path)
    assert lines[-1]["distill_kl"] < 0.8 * lines[0]["distill_kl"]
    for line in lines:
        assert line["objective"] == pytest.approx(0.1 * line["loss"] + 0.9 * 4 * line["distill_kl"], rel=1e-5)


def test_a_teacher_with_an_adapter(model_folder: Folder, tmp_path: Path) -> None:
    base = {"base": str(model_folder())}
    _, first = tune_in(tmp_path / "teacher", base, steps=8)
    objective = {"distill": {"teacher": str(model_folder()), "adapter": str(first.folder), "mix": 1.0}}
    run, _ = tune_in(tmp_path / "student", base, objective=objective, steps=8)
    lines = lines_of(run.path)
    assert 0 < lines[-1]["distill_kl"] < 0.5 * lines[0]["distill_kl"]


def test_a_teacher_of_another_vocabulary_is_refused(model_folder: Folder, tiny_model: Any, tmp_path: Path) -> None:
    from tiny_tokenizer import train_tokenizer

    from tuneloop.models.save import save_model

    save_model(tiny_model("llama"), train_tokenizer(("other words entirely",) * 3, 350), tmp_path / "teacher")
    objective = {"distill": {"teacher": str(tmp_path / "teacher")}}
    with pytest.raises(ModelError, match=r"has another vocabulary than the tuned model \(\d+ and \d+ tokens"):
        tune_in(tmp_path, {"base": str(model_folder())}, objective=objective)


# -- orpo --------------------------------------------------------------------------------------------------------------
def test_orpo_learns_to_prefer(model_folder: Folder, tmp_path: Path) -> None:
    run, tuned = tune_in(
        tmp_path, {"base": str(model_folder())}, train=pairs(16), val=pairs(6, 50), objective={"orpo": 1.0}, steps=12,
        validation={"every": 4}, early_stopping={"metric": "preference_accuracy", "patience": 9},
    )  # fmt: skip
    lines = lines_of(run.path)
    for line in lines:
        assert line["objective"] == pytest.approx(line["loss"] + line["orpo_loss"], rel=1e-5)
        assert 0 <= line["preference_accuracy"] <= 1
    assert lines[-1]["orpo_loss"] < 0.7 * lines[0]["orpo_loss"]
    assert lines[-1]["val_preference_accuracy"] == 1 and lines[-1]["val_orpo_loss"] < lines[3]["val_orpo_loss"]
    assert lines[-1]["tokens"] > 1.5 * lines[-1]["supervised_tokens"]
    assert tuned.progress.best == 1


def test_orpo_without_rejected_answers_is_an_error(model_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"12 of 15 rows have no rejected one, e\.g\. made\.jsonl, row 0"):
        tune_in(tmp_path, {"base": str(model_folder())}, train=[*pairs(3), *conversations(12)], objective={"orpo": 0.1})


def test_rejected_answers_without_orpo_are_said(
    model_folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune_in(tmp_path, {"base": str(model_folder())}, train=pairs(5), steps=1)
    assert "5 rows have a rejected answer, which only tune.objective.orpo learns from" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_pair_is_kept_or_dropped_as_a_whole(tiny_tokenizer: Any) -> None:
    rows = pairs(4)
    rows[1] = replace(rows[1], rejected=(Message("assistant", "word " * 200),))
    rows[2] = rows[2].with_messages((Message("user", "q"), Message("assistant", "word " * 200)))
    before = (Message("user", "Add 1 and 1."), Message("assistant", "2"), Message("user", "Add 3 and 30."))
    rows[3] = rows[3].with_messages((*before, Message("assistant", "33")))
    config = TuneConfig.model_validate({"objective": {"orpo": 0.1}, "max_length": 128})
    found = render_rows(Renderer(tiny_tokenizer), rows, config, "render")
    assert [row.example for row in found.rendered] == [rows[0].id, rows[3].id]
    assert [row.example for row in found.rejected] == [rows[0].id, rows[3].id]
    assert [(drop.origin.row, "rejected answer: " in drop.reason) for drop in found.drops] == [(1, True), (2, False)]
    for chosen, rejected in zip(found.rendered, found.rejected, strict=True):
        start, other = (int(np.flatnonzero(row.weights)[0]) for row in (chosen, rejected))
        assert start == other and (chosen.ids[:start] == rejected.ids[:start]).all(), "both are asked the same"
        text = tiny_tokenizer.decode(chosen.ids[chosen.weights > 0])
        assert text.count("<|im_end|>") == 1, "only the last answer is learnt"


def test_overlong_answers_may_be_cut(tiny_tokenizer: Any) -> None:
    class Silent:
        def advance(self, n: int, /) -> None: ...

    rows = [replace(row, rejected=(Message("assistant", "word " * 200),)) for row in pairs(2)]
    chosen, rejected, drops = render_pairs(
        Renderer(tiny_tokenizer), rows, max_length=40, overlong="truncate", progress=Silent()
    )
    assert len(chosen) == len(rejected) == 2 and not drops and len(rejected[0]) == 40


# -- weights -----------------------------------------------------------------------------------------------------------
def gradient(model: Any, rows: list[Any], folder: Path) -> tuple[float, torch.Tensor]:
    job = job_of(model, rows, folder, batch_size=len(rows))
    job.objective.train()
    ((loss, columns),) = job.terms.parts(range(len(rows)), 0, 0, 1, 1.0)
    loss.backward()
    return float(columns["loss"]), torch.cat([p.grad.flatten().double() for p in model.parameters()])


def test_weights_of_messages_and_rows_scale_the_loss_exactly(tiny_model: Any, tmp_path: Path) -> None:
    """Σ w·nll / Σ w: the step is the weighted mean of what each token alone would give."""
    rows = [replace(row, weights=(row.weights > 0).astype(np.float32)) for row in random_rows(3)]
    factors = [0.25, 1.0, 3.0]
    alone = [gradient(tiny_model(), [row], tmp_path) for row in rows]
    tokens = [row.supervised for row in rows]
    weighted = [
        replace(row, weights=row.weights * np.float32(factor)) for row, factor in zip(rows, factors, strict=True)
    ]
    loss, slope = gradient(tiny_model(), weighted, tmp_path)
    total = sum(f * n for f, n in zip(factors, tokens, strict=True))
    parts = [f * n * one / total for f, n, (_, one) in zip(factors, tokens, alone, strict=True)]
    wanted = torch.stack(parts).sum(0)
    assert loss == pytest.approx(sum(f * n * v for f, n, (v, _) in zip(factors, tokens, alone, strict=True)) / total)
    assert float((slope - wanted).norm() / wanted.norm()) < 1e-6
    twice = [replace(row, weights=row.weights * np.float32(2)) for row in weighted]
    assert gradient(tiny_model(), twice, tmp_path)[0] == pytest.approx(loss), "a common factor changes nothing"
    once, again = rows[0], replace(rows[0], weights=rows[0].weights * 2)
    doubled, repeated = (gradient(tiny_model(), some, tmp_path) for some in ([again, rows[1]], [once, once, rows[1]]))
    assert doubled[0] == pytest.approx(repeated[0]) and torch.allclose(doubled[1], repeated[1], atol=1e-6)
    without = [replace(rows[0], weights=rows[0].weights * 0), *rows[1:]]
    assert gradient(tiny_model(), without, tmp_path)[0] == pytest.approx(gradient(tiny_model(), rows[1:], tmp_path)[0])


def test_a_messages_weight_is_the_weight_of_its_tokens(tiny_tokenizer: Any) -> None:
    turns = (
        Message("user", "a"),
        Message("assistant", "b", train=0.5),
        Message("user", "c"),
        Message("assistant", "d"),
    )
    (row,) = Renderer(tiny_tokenizer).render(Example(turns, Origin("x", 0)))
    assert set(row.weights.tolist()) == {0.0, 0.5, 1.0}
    (plain,) = Renderer(tiny_tokenizer).render(Example(tuple(replace(m, train=None) for m in turns), Origin("x", 0)))
    assert ((row.weights > 0) == (plain.weights > 0)).all()


# -- dropout -----------------------------------------------------------------------------------------------------------
def test_dropout_is_set_for_training_alone(model_folder: Folder, tmp_path: Path) -> None:
    """GPT-2 drops out by default; the config that is exported is the base's own."""
    base = {"base": str(model_folder("gpt2"))}
    runs = {
        (p, seed): tune_in(tmp_path / f"{p}-{seed}", base, method="full", objective={"dropout": p}, steps=2,
                           shuffle=False, seed=seed, epochs=1)
        for p in (0.0, 0.3, None) for seed in (1, 2)
    }  # fmt: skip
    losses = {key: [line["loss"] for line in lines_of(run.path)] for key, (run, _) in runs.items()}
    assert losses[0.0, 1] == losses[0.0, 2], "off is deterministic"
    assert losses[0.3, 1] != losses[0.3, 2] and losses[None, 1] != losses[None, 2]
    assert losses[0.3, 1][0] != losses[None, 1][0]
    config = jsonl.read(runs[0.3, 1][1].folder / "config.json")
    assert config["resid_pdrop"] == config["embd_pdrop"] == 0.1


def test_neftune_is_not_in_what_is_exported_or_validated(model_folder: Folder, tmp_path: Path) -> None:
    run, tuned = tune_in(
        tmp_path, {"base": str(model_folder())}, val=conversations(3, 40), objective={"neftune": 50.0}, steps=2,
        learning_rate=1e-12,
    )  # fmt: skip
    plain, _ = tune_in(tmp_path, {"base": str(model_folder())}, val=conversations(3, 40), steps=2, learning_rate=1e-12)
    noisy, quiet = lines_of(run.path), lines_of(plain.path)
    assert noisy[0]["loss"] != pytest.approx(quiet[0]["loss"], rel=1e-3)
    assert noisy[-1]["val_loss"] == pytest.approx(quiet[-1]["val_loss"], rel=1e-4)
    assert set(load_file(tuned.folder / adapters.WEIGHTS)) and "objective" not in noisy[0]


def test_a_step_with_fp16_and_all_terms(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model(initializer_range=0.05).to(torch.float16)
    job = job_of(model, random_rows(4), tmp_path, objective={"label_smoothing": 0.1})
    line = _step(job, [0, 1, 2, 3], job.terms.tokens, 0)
    assert np.isfinite(line["gradient_norm"]) and line["objective"] != line["loss"]
