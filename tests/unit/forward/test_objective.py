"""The objective scores what the model's own logits score, packed where that is exact and padded where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import PACKED
from toy import NO_DROPOUT, branching_rows, job_of, random_rows

from tuneloop.core.errors import ModelError
from tuneloop.forward import objective as forward
from tuneloop.forward.batch import collate
from tuneloop.forward.objective import Objective, prepare
from tuneloop.render.rendered import Rendered

Make = Callable[..., Any]


def own_sums(model: Any, rows: list[Rendered]) -> list[float]:
    """Weighted nll of each row from the model's own logits, in float64."""
    out = []
    forward.use_standard(forward.core_of(model))
    for row in rows:
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        with torch.no_grad():
            log_p = model(input_ids=ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
        picked = log_p.gather(1, ids[0, 1:, None])[:, 0]
        out.append(float(-(picked * torch.from_numpy(row.weights[1:])).sum()))
    return out


def test_collate_scores_the_token_after() -> None:
    rows = [
        Rendered(np.array([5, 6, 7], np.int32), np.array([9, 0, 1], np.float32), "a"),
        Rendered(np.array([8, 9], np.int32), np.array([0, 0.5], np.float32), "b"),
        Rendered(np.array([4], np.int32), np.array([1], np.float32), "c"),
    ]
    packed, padded = (collate(rows, packed=form, pad_id=3) for form in (True, False))
    assert packed.ids.tolist() == [[5, 6, 7, 8, 9, 4]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 1, 0]]
    assert packed.keep_N.tolist() == [1, 3] and padded.keep_N.tolist() == [1, 3]
    assert padded.ids.tolist() == [[5, 6, 7], [8, 9, 3], [4, 3, 3]]
    assert padded.mask is not None and padded.mask.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    for batch in (packed, padded):
        assert batch.targets_N.tolist() == [7, 9]
        assert batch.weights_N.tolist() == [1.0, 0.5]
        assert batch.rows_N.tolist() == [0, 1] and batch.rows == 3


@pytest.mark.parametrize("name", PACKED)
def test_packed_where_it_is_exact(name: str, tiny_model: Make) -> None:
    model, rows = tiny_model(name), random_rows(9)
    objective, why = prepare(model, rows, 0)
    assert objective.packed and "packed" in why
    scores = forward.nll(objective, rows, pad_id=0, budget=50)
    assert [weight for _, weight in scores] == [float(row.weights[1:].sum()) for row in rows]
    assert [total for total, _ in scores] == pytest.approx(own_sums(model, rows), rel=1e-5)


@pytest.mark.parametrize("name", PACKED)
def test_common_beginnings_are_computed_once(name: str, tiny_model: Make) -> None:
    model, rows = tiny_model(name, **NO_DROPOUT.get(name, {})), branching_rows(9)
    objective, why = prepare(model, rows, 0)
    assert objective.share, why
    assert objective.batch(rows, 0).ids.numel() < sum(map(len, rows))
    scores = forward.nll(objective, rows, pad_id=0, budget=200)
    assert [total for total, _ in scores] == pytest.approx(own_sums(model, rows), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "word"),
    [({"lora": {"rank": 4, "dropout": 0.1}}, "dropout"), ({"prompt": {"tokens": 4}}, "virtual"), ("lora", "once")],
)
def test_what_differs_from_row_to_row_is_not_shared(method: Any, word: str, tiny_model: Make, tmp_path: Path) -> None:
    job = job_of(tiny_model(), branching_rows(4), tmp_path, method=method)
    state = torch.get_rng_state()
    objective, why = prepare(job.objective.model, job.rows, 0)
    assert objective.share == (word == "once") and word in why
    assert torch.equal(state, torch.get_rng_state()), "a run draws the same numbers, checked or not"


def test_gpt2_shares_without_its_dropout_alone(tiny_model: Make) -> None:
    assert not prepare(tiny_model("gpt2"), branching_rows(4), 0)[0].share


def test_state_space_layers_run_padded(tiny_tokenizer: Any) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "mamba2", vocab_size=300, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, state_size=8,
        n_groups=1, chunk_size=8, initializer_range=0.3, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rows = random_rows(6)
    objective, why = prepare(model, rows, 0)
    assert not objective.packed and "padded" in why
    scores = forward.nll(objective, rows, pad_id=0, budget=60)
    assert [total for total, _ in scores] == pytest.approx(own_sums(model, rows), rel=1e-4)


def test_what_only_long_rows_and_batches_would_show(tiny_model: Make) -> None:
    """Llama 4 scales its queries from the 8192th token of the batch on, and attends in chunks."""
    _, why = prepare(tiny_model("llama4_text", attention_chunk_size=64), random_rows(4), 0)
    assert "scales queries by their place in the whole batch" in why
    plain = tiny_model("llama4_text", attention_chunk_size=64, attn_temperature_tuning=False)
    assert prepare(plain, random_rows(5, shortest=60, longest=64), 0)[0].packed
    rows = [*random_rows(5), *random_rows(1, shortest=65, longest=65)]
    objective, why = prepare(plain, rows, 0)
    assert not objective.packed and "chunks of 64 tokens" in why


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8,
                    "attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0}),
        ("granite", {"num_key_value_heads": 2, "logits_scaling": 4.0}),
        ("cohere", {"num_key_value_heads": 2, "logit_scale": 0.25}),
    ],
)  # fmt: skip
def test_what_architectures_do_to_their_logits(name: str, values: dict[str, Any], tiny_model: Make) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shared = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"vocab_size": 300, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **shared, **ids, **values))
    rows = random_rows(6)
    objective, _ = prepare(model.float().eval(), rows, 0)
    assert objective.packed
    scores = forward.nll(objective, rows, pad_id=0, budget=60)
    assert [total for total, _ in scores] == pytest.approx(own_sums(model, rows), rel=1e-5)


def test_an_unknown_change_of_the_logits_is_refused(tiny_model: Make) -> None:
    model = tiny_model()
    model.lm_head.register_forward_hook(lambda module, inputs, out: out * 3)  # not seen by the fused head
    with pytest.raises(ModelError, match="LlamaForCausalLM does something to its logits"):
        prepare(model, random_rows(4), 0)


@pytest.mark.parametrize("packed", [True, False])
def test_rows_add_up_whatever_the_batches(packed: bool, tiny_model: Make) -> None:
    model, rows = tiny_model(), random_rows(12)
    objective, _ = prepare(model, rows, 0)
    if not packed:
        forward.use_standard(model)
        objective = Objective(model, packed=False)
    objective.train()
    done: list[int] = []
    whole = forward.nll(objective, rows, pad_id=0, budget=10_000, advance=done.append)
    single = forward.nll(objective, rows, pad_id=0, budget=1)
    assert sum(done) == len(rows) and objective.training
    assert [total for total, _ in whole] == pytest.approx([total for total, _ in single], rel=1e-5)
    mean = forward.mean_nll(objective, rows, pad_id=0, budget=40)
    assert mean == pytest.approx(sum(t for t, _ in whole) / sum(w for _, w in whole), rel=1e-5)
    with torch.no_grad():
        total, _ = objective.eval()(collate(rows, packed=packed))
    assert float(total) == pytest.approx(sum(t for t, _ in whole), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_prepare_judges_half_precision_fairly(dtype: torch.dtype, tiny_model: Make) -> None:
    objective, _ = prepare(tiny_model("llama", initializer_range=0.05).to(dtype), random_rows(6), 0)
    assert objective.packed


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_gradient_checkpointing_changes_nothing(name: str, tiny_model: Make) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(name, **NO_DROPOUT.get(name, {}))
        if checkpointing:
            forward.checkpoint_activations(model)
        objective, _ = prepare(model, random_rows(5), 0)
        total, _ = objective.train()(collate(random_rows(5), packed=True))
        total.backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
