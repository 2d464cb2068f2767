"""Methods that train a part of the model itself: exactly that part, no gradient where none is needed, resumable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from toy import counting_rows, job_of, random_rows, weights_of

from tuneloop.core.errors import ModelError
from tuneloop.forward.batch import collate
from tuneloop.forward.objective import checkpoint_activations, prepare
from tuneloop.models.blocks import blocks_of
from tuneloop.tune import checkpoint
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.loop import train
from tuneloop.tune.methods import FAMILY as METHODS
from tuneloop.tune.methods import Setting
from tuneloop.tune.model import gradients

Make = Callable[..., Any]


def trained(model: Any, method: Any) -> set[str]:
    return {name for name, p in METHODS.make(method).apply(model).named_parameters() if p.requires_grad}


def starting(model: Any, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(("name", "path"), [("llama", "model.layers"), ("gpt2", "transformer.h")])
def test_freeze_trains_what_it_says(name: str, path: str, tiny_model: Make) -> None:
    make: Any = (
        partial(tiny_model, name, num_hidden_layers=4) if name == "llama" else partial(tiny_model, name, n_layer=4)
    )
    for layers, numbers in ((2, (2, 3)), ([0, -1], (0, 3)), (4, range(4)), ([1], (1,))):
        assert trained(make(), {"freeze": {"layers": layers}}) == starting(make(), *(f"{path}.{n}." for n in numbers))
    norm = {"llama": "model.norm", "gpt2": "transformer.ln_f"}[name]
    assert trained(make(), {"freeze": {"layers": 0, "norm": True}}) == starting(make(), norm)
    assert trained(make(), {"freeze": {"layers": [], "names": [rf"{path}\.2\..*norm|\.3\.ln_2"]}}) == {
        n for n, _ in make().named_parameters() if (n.startswith(f"{path}.2.") and "norm" in n) or ".3.ln_2" in n
    }
    assert "layers 2, 3 of 0–3" in METHODS.make("freeze").words(METHODS.make("freeze").apply(make()))


def test_freeze_and_a_tied_head(tiny_model: Make) -> None:
    untied = partial(tiny_model, "llama")
    assert trained(untied(), {"freeze": {"layers": 0, "head": True}}) == {"lm_head.weight"}
    assert trained(untied(), {"freeze": {"layers": 0, "embeddings": True}}) == {"model.embed_tokens.weight"}
    assert trained(tiny_model("gpt2"), {"freeze": {"layers": 0, "embeddings": True, "head": True}}) == {
        "transformer.wte.weight",
        "transformer.wpe.weight",
    }
    for part in ("embeddings", "head"):
        with pytest.raises(ModelError, match=f"{part} is on .* one tensor"):
            METHODS.make({"freeze": {part: True}}).apply(tiny_model("gpt2"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 3}, "layers is 3, but the model has only 2"),
        ({"layers": [2]}, "there is no layer 2, only 0 to 1"),
        ({"layers": 0}, "trains nothing"),
        ({"names": ["attn_of_another"]}, "'attn_of_another' finds no parameter"),
    ],
)
def test_freeze_refuses(options: dict[str, Any], words: str, tiny_model: Make) -> None:
    with pytest.raises(ModelError, match=words):
        METHODS.make({"freeze": options}).apply(tiny_model())
    with pytest.raises(ValidationError, match="no regular expression"):
        METHODS.make({"freeze": {"names": ["("]}})


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_nothing_below_the_lowest_trained_layer_is_differentiated(
    name: str, checkpointing: bool, tiny_model: Make
) -> None:
    model = METHODS.make({"freeze": {"layers": 1}}).apply(tiny_model(name))
    if checkpointing:
        checkpoint_activations(model)
    objective, _ = prepare(model, random_rows(4), 0)
    seen: list[bool] = []
    for block in blocks_of(model)[1]:
        block.register_forward_hook(
            lambda _m, _i, out: seen.append((out[0] if isinstance(out, tuple) else out).requires_grad)
        )
    loss, _ = objective.train()(collate(random_rows(4), packed=True))
    assert seen == [False, True], "the lower layer's result has no autograd graph"
    loss.backward()
    for name_, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name_


def test_bitfit_trains_biases_or_norms(tiny_model: Make) -> None:
    gpt2 = tiny_model("gpt2")
    assert trained(gpt2, "bitfit") == {name for name, _ in gpt2.named_parameters() if name.endswith("bias")}
    llama = tiny_model()
    norms = {name for name, _ in llama.named_parameters() if "norm" in name}
    assert trained(llama, "bitfit") == norms and norms
    assert "0 biases, 5 scales of normalisations (this architecture has no biases)" in METHODS.make("bitfit").words(
        llama
    )
    both = trained(gpt2, {"bitfit": {"norms": True}})
    assert {n for n, _ in gpt2.named_parameters() if ".ln_" in n or n.endswith("bias")} == both
    qwen2 = tiny_model("qwen2")
    assert {n.split(".")[-2] for n in trained(qwen2, "bitfit")} == {"q_proj", "k_proj", "v_proj"}
    assert {n.rsplit(".", 1)[-1] for n in trained(tiny_model("qwen3_next"), "bitfit")} == {"weight"}, "dt_bias is none"
    with pytest.raises(ModelError, match="no biases; set norms: true"):
        METHODS.make({"bitfit": {"norms": False}}).apply(tiny_model())


def setting_of(model: Any, rows: Any, seed: int = 7) -> Setting:
    objective, _ = prepare(model, rows, 0)
    return Setting(None, seed, partial(gradients, objective, rows, 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_fisher_takes_the_largest_mean_squaredgradients(name: str, tiny_model: Make) -> None:
    model, rows = tiny_model(name), random_rows(4)
    method = METHODS.make({"sparse": {"fraction": 0.01, "rows": 4}})
    method.apply(model)
    chosen = method.entries(model, setting_of(model, rows))
    sums: dict[str, Any] = {}
    for row in rows:
        objective, _ = prepare(model, rows, 0)
        model.zero_grad()
        objective(collate([row], packed=True))[0].backward()
        for key, p in model.named_parameters():
            if p.grad is not None:
                sums[key] = sums.get(key, 0) + p.grad.double() ** 2
    assert chosen.keys() == sums.keys() and all(p.ndim == 2 for p in sums.values())
    flat = torch.cat([value.flatten() for value in sums.values()])
    picked = torch.cat([sums[key].flatten()[places] for key, places in chosen.items()])
    assert len(picked) == method.count(model) == round(0.01 * len(flat))
    torch.testing.assert_close(picked.sort().values, flat.sort().values[-len(picked) :], rtol=1e-4, atol=0)


def test_magnitude_and_random(tiny_model: Make) -> None:
    model = METHODS.make({"sparse": {"targets": ["q_proj"]}}).apply(tiny_model())
    places = METHODS.make({"sparse": {"select": "magnitude", "fraction": 0.1}}).entries(
        model, setting_of(model, random_rows(2))
    )
    every = torch.cat([model.get_parameter(key).detach().flatten().abs() for key in places])
    picked = torch.cat([model.get_parameter(key).detach().flatten().abs()[at] for key, at in places.items()])
    assert all("q_proj" in key for key in places)
    assert float(picked.min()) >= float(every.sort().values[-len(picked)])
    method = METHODS.make({"sparse": {"select": "random", "fraction": 0.1}})
    one, same, other = (method.entries(model, setting_of(model, random_rows(2), seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(ModelError, match="no matrix of this model ends in c_attn"):
        METHODS.make({"sparse": {"targets": "c_attn"}}).apply(tiny_model())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_chosen_weights_move(dtype: torch.dtype, optimizer: str, tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model().to(dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    job = job_of(
        model, counting_rows(8), tmp_path, method={"sparse": {"fraction": 0.02}}, steps=10, optimizer=optimizer
    )
    train(job)
    count = job.config.method.count(model)
    assert sum(m.numel() for m in job.optimizer.masters.values()) == count
    moments = [v for key, v in job.optimizer.state().items() if key.startswith("state/") and "exp_avg" in key]
    assert sum(v.numel() for v in moments) == 2 * count, "the optimizer's state is as sparse"
    for name, p in model.named_parameters():
        changed = (p != before[name]).flatten().nonzero()[:, 0].tolist()
        assert set(changed) <= set(job.optimizer.entries.get(name, torch.empty(0)).tolist()), name
        assert p.grad is None


def test_a_continued_sparse_run_keeps_its_choice(tiny_model: Make, tmp_path: Path) -> None:
    """Even if other weights would be chosen now: the places are in the checkpoint."""

    def job(seed: int) -> Any:
        return job_of(tiny_model(), counting_rows(8, seed=seed), tmp_path, method={"sparse": {"rows": 4}}, steps=3)

    first, second = job(0), job(1)
    places = first.optimizer.entries
    assert any(not torch.equal(places[key], second.optimizer.entries[key]) for key in places)
    train(first)
    path = checkpoint.latest(first.checkpoints)
    assert path is not None
    assert checkpoint.load(path, second.optimizer) == Progress(step=3)
    assert all(torch.equal(places[key], second.optimizer.entries[key]) for key in places)
    one, two = weights_of(first), weights_of(second)
    assert all(torch.equal(one[key], two[key]) for key in one)
