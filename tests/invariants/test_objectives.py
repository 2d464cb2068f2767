"""Every part of tune.objective: packed = padded, 1×N = N×1, resumed = uninterrupted, and equal to plain float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import NO_DROPOUT, job_of, lines_of, random_rows, weights_of

from tuneloop.forward.mixing import draw
from tuneloop.forward.objective import Objective
from tuneloop.render.rendered import Rendered
from tuneloop.track.metrics import MEASURED
from tuneloop.tune.loop import Job, _step, train
from tuneloop.tune.teachers import Teacher
from tuneloop.tune.terms import KEPT, Extras

Make = Callable[..., Any]
PARTS: dict[str, dict[str, Any]] = {
    "label_smoothing": {"label_smoothing": 0.1},
    "dft": {"dft": True},
    "neftune": {"neftune": 5.0},
    "keep": {"keep": {"weight": 0.7, "rows": 5}},
    "distill": {"distill": {"teacher": "elsewhere", "mix": 0.6, "temperature": 2.0}},
    "distill_js": {"distill": {"teacher": "elsewhere", "mix": 1.0, "direction": "js"}},
    "orpo": {"orpo": 0.5},
    "orpo_keep": {"orpo": 0.5, "keep": {"rows": 3}},
    "dft_neftune_keep": {"dft": True, "neftune": 5.0, "keep": {"rows": 3}},
}
METHODS: list[Any] = ["full", {"lora": {"rank": 4}}]


def scored(rows: list[Rendered]) -> list[Rendered]:
    """Some rows have weights of 0.5 and 2 throughout, as a whole conversation may."""
    return [
        replace(row, weights=np.where(row.weights > 0, factor, 0).astype(np.float32))
        for row, factor in zip(rows, np.resize([1, 2, 0.5], len(rows)), strict=True)
    ]


def job(model: Any, folder: Path, part: str, method: Any, teacher: Any, *, packed: bool = True, **options: Any) -> Job:
    """A job on twelve rows with all the extras that a part may want, starting away from the base."""
    torch.manual_seed(3)
    base = copy.deepcopy(model)
    made = job_of(
        model, scored(random_rows(12)), folder, packed=packed, method=method, objective=PARTS[part],
        **{"batch_size": 12, **options},
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in made.optimizer.model_weights.items():
            if method == "full":
                weight.add_(torch.randn_like(weight), alpha=0.02)
            elif "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    made.optimizer.publish()
    if packed:
        from tuneloop.forward.attention import use_packed

        use_packed(base)
        use_packed(teacher)
    off = Teacher(made.objective, 0, adapter_off=True)
    config = made.config.objective
    extras = Extras(
        rejected=[replace(row, weights=(row.weights > 0) * np.float32(1)) for row in random_rows(12, seed=5)]
        if config.orpo
        else (),
        teacher=Teacher(Objective(teacher, packed=packed), 0) if config.distill else None,
        base=Teacher(Objective(base, packed=packed), 0) if method == "full" else off,
        prompts=random_rows(9, seed=8),
    )
    return replace(made, extras=extras)


def of_one_step(made: Job) -> tuple[dict[str, Any], Tensor]:
    """The line of one optimizer step over all rows, and the gradient that it was taken with."""
    seen: list[Tensor] = []
    norm = made.optimizer.gradient_norm

    def keeping() -> Tensor:
        masters = made.optimizer.masters.values()
        seen.append(
            torch.cat([(torch.zeros_like(m) if m.grad is None else m.grad).flatten() for m in masters]).double()
        )
        return norm()

    object.__setattr__(made.optimizer, "gradient_norm", keeping)
    torch.manual_seed(4)
    return _step(made, list(range(12)), made.terms.tokens, 0), seen[0]


@pytest.mark.parametrize("method", METHODS, ids=["full", "lora"])
@pytest.mark.parametrize("part", PARTS)
def test_packed_is_padded_is_accumulated(part: str, method: Any, tiny_model: Make, tmp_path: Path) -> None:
    def computed(packed: bool, budget: int) -> tuple[dict[str, Any], Tensor]:
        models = [tiny_model("llama", seed, initializer_range=0.1) for seed in (0, 1)]
        made = job(models[0], tmp_path, part, method, models[1], packed=packed, token_budget=budget)
        line, gradient = of_one_step(made)
        wanted = {*made.terms.columns, "tokens", "supervised_tokens"} & line.keys() - MEASURED
        return {key: line[key] for key in wanted}, gradient

    line, gradient = computed(True, 10_000)
    assert part == "neftune" or line["objective"] != line["loss"]
    for packed, budget in [(False, 10_000), (True, 40), (True, 1), (False, 40)]:
        other, its = computed(packed, budget)
        for key, value in line.items():
            assert other[key] == pytest.approx(value, rel=1e-6), (key, packed, budget)
        assert float((its - gradient).norm() / gradient.norm()) < 3e-6, (packed, budget)


def log_p(model: Any, row: Rendered, temperature: float = 1.0) -> Tensor:
    """[T, V] of a row by the model's own forward pass."""
    model.set_attn_implementation("sdpa")
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    return F.log_softmax(model(input_ids=ids, use_cache=False).logits[0] / temperature, -1)


def expected(made: Job, model: Any, teacher: Any, base: Any) -> Tensor:
    """The whole objective in plain PyTorch, from the definitions in the papers."""
    config, rows = made.config.objective, made.rows
    total = sum(float(row.weights[1:].sum()) for row in rows)
    loss = torch.zeros((), dtype=torch.float64)
    for row in rows:
        predicted, targets = log_p(model, row)[:-1], torch.from_numpy(row.ids[1:].astype(np.int64))
        weights = torch.from_numpy(row.weights[1:]).double() / total
        each = F.cross_entropy(predicted, targets, reduction="none", label_smoothing=config.label_smoothing)
        if config.dft:
            each = each * each.detach().neg().exp()
        if config.distill:
            heat, mix = config.distill.temperature, config.distill.mix
            p, q = log_p(teacher, row, heat)[:-1].detach().exp(), log_p(model, row, heat)[:-1].exp()
            if config.distill.direction == "js":
                m = (p + q) / 2
                apart = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
            else:
                apart = (p * (p / q).log()).sum(-1)
            each = (1 - mix) * each + mix * heat**2 * apart
        loss = loss + (each * weights).sum()
    if config.orpo:
        counts = [float(row.weights.max()) for row in rows]  # each row has one weight throughout
        for row, other, count in zip(rows, made.extras.rejected, counts, strict=True):
            odds = []
            for one in (row, other):
                scored_at = torch.from_numpy(one.weights[1:] > 0)
                targets = torch.from_numpy(one.ids[1:].astype(np.int64))
                mean = log_p(model, one)[:-1].gather(1, targets[:, None])[scored_at].mean()
                odds.append(mean.exp() / (1 - mean.exp()))
            loss = loss - config.orpo * count / sum(counts) * F.logsigmoid((odds[0] / odds[1]).log())
    if config.keep:
        prompts = made.extras.prompts
        picked = [prompts[i] for i in draw(len(prompts), config.keep.rows, 0, made.seed, KEPT).tolist()]
        tokens = sum(map(len, picked))
        for row in picked:
            p, q = log_p(base, row).detach(), log_p(model, row)
            loss = loss + config.keep.weight * (p.exp() * (p - q)).sum() / tokens
    return loss


@pytest.mark.parametrize("part", [part for part in PARTS if "neftune" not in part])
def test_it_is_the_formula_of_the_paper(part: str, tiny_model: Make, tmp_path: Path) -> None:
    """GPT-2 in float64, as the norms of the others compute in fp32 whatever the model's dtype is."""
    model, teacher = (tiny_model("gpt2", seed, **NO_DROPOUT["gpt2"]).double() for seed in (0, 1))
    base = copy.deepcopy(model)
    made = job(model, tmp_path, part, "full", teacher, packed=False, token_budget=50)
    twin = copy.deepcopy(model)
    line, gradient = of_one_step(made)
    loss = expected(made, twin, teacher, base)
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in twin.parameters()])  # type: ignore[union-attr]
    # loss weights are float32, which is what the tolerance is for
    assert line["objective"] == pytest.approx(float(loss.detach()), rel=1e-7)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-6


@pytest.mark.parametrize("part", PARTS)
def test_interrupted_and_resumed(part: str, tiny_model: Make, tmp_path: Path) -> None:
    """GPT-2, whose dropout draws from the same random state as NEFTune's noise."""

    def made(folder: Path) -> Job:
        models = [tiny_model("gpt2", seed) for seed in (0, 1)]
        return job(models[0], folder, part, "full", models[1], batch_size=4, steps=6, save_every=2, learning_rate=3e-3)

    whole = made(tmp_path / "whole")
    train(whole)
    broken = made(tmp_path / "broken")
    step, done = broken.optimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        if done == 3:
            raise KeyboardInterrupt
        done += 1
        step(*arguments)

    object.__setattr__(broken.optimizer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    torch.rand(7)
    again = made(tmp_path / "broken")
    train(again)
    ours, theirs = weights_of(whole), weights_of(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = [lines_of(tmp_path / name) for name in ("whole", "broken")]
    assert lines[0] == lines[1] and len(lines[0]) == 6
    extra = set(whole.terms.columns) - {"objective"} | ({"objective"} if part != "neftune" else set())
    assert extra - MEASURED <= lines[0][0].keys()


def test_a_step_without_any_part_has_no_further_column(tiny_model: Make, tmp_path: Path) -> None:
    made = job_of(tiny_model(), random_rows(4), tmp_path, steps=1)
    train(made)
    (line,) = lines_of(tmp_path)
    assert line.keys() == {
        "step", "epoch", "loss", "learning_rate", "gradient_norm", "tokens", "supervised_tokens"
    }  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_the_loss_on_record_is_the_plain_one(part: str, tiny_model: Make, tmp_path: Path) -> None:
    """Comparable between runs whatever they minimise (noise and dropout aside)."""
    lines = []
    for objective in (PARTS[part], {"neftune": PARTS[part].get("neftune", 0.0)}):
        models = [tiny_model("llama", seed) for seed in (0, 1)]
        made = job(models[0], tmp_path, part, "full", models[1])
        if objective is not PARTS[part]:
            branch = made.config.model_copy(update={"objective": type(made.config.objective)(**objective)})
            made = replace(made, config=branch)
        lines.append(of_one_step(made)[0])
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=1e-6)


def test_ranks_add_up(tiny_model: Make, tmp_path: Path) -> None:
    """The parts of two ranks are those of one: what test_ranks shows of the loop holds for every term."""
    for part in PARTS:
        if "neftune" in part:
            continue  # ranks draw noise of their own
        models = [tiny_model("llama", seed) for seed in (0, 1)]
        terms = job(models[0], tmp_path, part, "full", models[1], token_budget=50).terms
        terms.objective.eval()
        sums = []
        for world in (1, 2, 3):
            found = dict.fromkeys(terms.columns, 0.0)
            for rank in range(world):
                for _, columns in terms.parts(range(12), 0, rank, world, 1.0):
                    for name, value in columns.items():
                        found[name] += float(value)
            sums.append(found)
        assert sums[1] == pytest.approx(sums[0], rel=1e-6) and sums[2] == pytest.approx(sums[0], rel=1e-6), part


def test_a_loss_scale_changes_nothing(tiny_model: Make, tmp_path: Path) -> None:
    for part in PARTS:
        gradients = []
        for scale in (1.0, 1024.0):
            models = [tiny_model("llama", seed) for seed in (0, 1)]
            terms = job(models[0], tmp_path, part, "full", models[1]).terms
            torch.manual_seed(4)
            total = torch.zeros(())
            values: dict[str, float] = {}
            for loss, columns in terms.parts(range(12), 0, 0, 1, scale):
                total = total + loss / scale
                values |= {name: float(value) for name, value in columns.items()}
            total.backward()
            gradients.append((models[0].lm_head.weight.grad, values))
        torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=1e-4, atol=1e-7)
        assert gradients[0][1] == pytest.approx(gradients[1][1], rel=1e-5), part
