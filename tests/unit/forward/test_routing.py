"""The load-balancing loss is that of transformers, over real tokens only, and does not depend on how a step is cut."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import MOE
from toy import random_rows
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tuneloop.forward import routing
from tuneloop.forward.attention import use_packed, use_standard
from tuneloop.forward.batch import collate
from tuneloop.forward.objective import Objective, core_of, prepare, trunk_of
from tuneloop.forward.routing import Routing
from tuneloop.models import targets
from tuneloop.tune.methods import FAMILY as METHODS

Make = Callable[..., Any]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_one_layer_is_what_transformers_computes(packed: bool, tiny_model: Make) -> None:
    model, rows = tiny_model("qwen3_moe", num_hidden_layers=1), random_rows(7)
    padded = collate(rows, packed=False)
    logits = model(padded.ids, attention_mask=padded.mask, output_router_logits=True).router_logits
    expected = load_balancing_loss_func(logits, 4, 2, padded.mask)
    expected_grad = torch.autograd.grad(expected, model.model.embed_tokens.weight)[0]

    watched = Routing(model)
    if packed:
        use_packed(model)
    batch = collate(rows, packed=packed)
    watched.begin()
    with watched.watching(batch):
        Objective(model, packed=packed)(batch)
    tokens = sum(map(len, rows))
    loss = watched.loss(tokens)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert routing.balance(watched.choices_LE, watched.chances_LE, tokens) == pytest.approx(float(expected), rel=1e-5)
    grad = torch.autograd.grad(loss, model.model.embed_tokens.weight)[0]
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", MOE)
def test_every_router_is_watched_and_every_real_token_counted(name: str, tiny_model: Make) -> None:
    model, rows = tiny_model(name), random_rows(7)
    objective, _ = prepare(model, rows, 0)
    watched = Routing(model)
    batch = collate(rows, packed=objective.packed)
    choices_LE = watched.look_ahead(objective, [batch])
    each = model.config.num_experts_per_tok
    assert watched.names and choices_LE.sum(1).tolist() == [each * sum(map(len, rows))] * len(watched.names)
    assert routing.load(choices_LE).mean(1).tolist() == pytest.approx([1.0] * len(watched.names))
    with watched.watching(batch):
        objective(batch)
    loss = watched.loss(sum(map(len, rows)))
    loss.backward()
    for router in targets.routers(model).values():
        assert next(router.module.parameters()).grad.abs().sum() > 0
        assert not router.module._forward_hooks


@pytest.mark.parametrize("method", [{"prompt": {"tokens": 5}}, {"prefix": {"tokens": 5}}], ids=["prompt", "prefix"])
def test_virtual_tokens_count_as_little_as_padding(method: Any, tiny_model: Make) -> None:
    model, rows = METHODS.make(method).apply(tiny_model("qwen3_moe")), random_rows(7)
    watched, tokens = Routing(model), sum(map(len, rows))
    found = []
    for packed in (True, False):
        (use_packed if packed else use_standard)(core_of(model))
        batch = collate(rows, packed=packed)
        found.append(watched.look_ahead(Objective(model, packed=packed), [batch]))
        with watched.watching(batch):
            Objective(model, packed=packed)(batch)
        found.append(watched.loss(tokens))
    assert found[0].sum(1).tolist() == [2 * tokens] * 2
    assert torch.equal(found[0], found[2]) and float(found[1]) == pytest.approx(float(found[3]), rel=1e-5)


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "jamba"])
def test_a_step_cut_in_pieces_has_the_same_loss_and_gradient(name: str, tiny_model: Make) -> None:
    model, rows = tiny_model(name), random_rows(8)
    objective, _ = prepare(model, rows, 0)
    tokens = sum(map(len, rows))

    def of(cuts: list[list[Any]]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        watched = Routing(model)
        batches = [collate(cut, packed=objective.packed) for cut in cuts]
        watched.look_ahead(objective, batches)
        total = 0.0
        for batch in batches:
            with watched.watching(batch):
                objective(batch)
            loss = watched.loss(tokens)
            loss.backward()
            total += float(loss)
        grads = [p.grad.flatten() for p in trunk_of(core_of(model)).parameters() if p.grad is not None]
        return total, torch.cat(grads)

    whole, pieces = of([rows]), of([rows[:1], rows[1:5], rows[5:]])
    assert pieces[0] == pytest.approx(whole[0], rel=1e-5)
    assert float((pieces[1] - whole[1]).norm() / whole[1].norm()) < 1e-5


def test_a_reference_pass_without_gradient_is_not_counted(tiny_model: Make) -> None:
    model, batch = tiny_model("mixtral"), collate(random_rows(3), packed=False)
    objective, watched = Objective(model, packed=False), Routing(model)
    with watched.watching(batch):
        objective(batch)
        with torch.no_grad():
            objective(batch)
    assert int(watched.choices_LE[0].sum()) == 2 * int(batch.mask.sum())  # type: ignore[union-attr]


def test_gradient_checkpointing_changes_nothing(tiny_model: Make) -> None:
    grads = []
    for checkpointing in (False, True):
        model = tiny_model("qwen3_moe").train()
        if checkpointing:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch, watched = collate(random_rows(4), packed=False), Routing(model)
        with watched.watching(batch):
            total, _ = Objective(model, packed=False)(batch)
        (total + watched.loss(int(batch.mask.sum()))).backward()  # type: ignore[union-attr]
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"router_aux_loss_coef": 0.02}, 0.02),
        ({"router_aux_loss_coef": None}, 0.0),
        ({"aux_loss_alpha": 0.001, "topk_method": "greedy"}, 0.001),  # DeepSeek-V2
        ({"aux_loss_alpha": 0.001, "topk_method": "noaux_tc"}, 0.0),  # DeepSeek-V3
        ({}, 0.0),
    ],
)
def test_the_weight_is_the_architectures_own(values: dict[str, Any], expected: float) -> None:
    config = SimpleNamespace(**values)
    config.get_text_config = lambda: config
    assert routing.coefficient(config) == expected
