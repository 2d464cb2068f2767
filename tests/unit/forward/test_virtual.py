"""Virtual tokens: packed = padded = peft's own forward pass and generation; nothing but them gets a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from toy import NO_DROPOUT, random_rows

from tuneloop.core.errors import DataError, ModelError
from tuneloop.forward import objective as forward
from tuneloop.forward import virtual
from tuneloop.forward.attention import use_packed, use_standard
from tuneloop.forward.batch import collate
from tuneloop.forward.objective import Objective, prepare
from tuneloop.generate.engine import Decoding
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.tune.methods import FAMILY as METHODS

Make = Callable[..., Any]
CHOICES = {
    "prompt": {"prompt": {"tokens": 5}},
    "prefix": {"prefix": {"tokens": 5}},
    "projected": {"prefix": {"tokens": 5, "projection": True, "projection_size": 7}},
}
ARCHITECTURES = ("llama", "gpt2", "qwen2", "mistral", "gemma3_text")


def made(method: str, name: str, tiny_model: Make, **changes: Any) -> Any:
    torch.manual_seed(1)
    return METHODS.make(CHOICES[method]).apply(tiny_model(name, **NO_DROPOUT.get(name, {}), **changes))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("method", CHOICES)
def test_packed_is_padded_is_peft(method: str, name: str, tiny_model: Make) -> None:
    model, rows = made(method, name, tiny_model), random_rows(9)
    objective, why = prepare(model, rows, 0)
    assert objective.packed and "packed" in why
    use_standard(forward.core_of(model))
    expected = []
    for row in rows:
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0, -len(row) : -1].double().log_softmax(-1)
        picked = log_p.gather(1, ids[0, 1:, None])[:, 0]
        expected.append(float(-(picked * torch.from_numpy(row.weights[1:])).sum()))
    gradients = []
    for packed in (True, False):
        (use_packed if packed else use_standard)(forward.core_of(model))
        computed = Objective(model, packed=packed)
        scores = forward.nll(computed, rows, pad_id=0, budget=50)
        assert [total for total, _ in scores] == pytest.approx(expected, rel=1e-5)
        model.zero_grad()
        computed(collate(rows, packed=packed))[0].backward()
        for key, p in model.named_parameters():
            assert (p.grad is not None) == p.requires_grad == ("prompt_encoder" in key), key
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("method", CHOICES)
@pytest.mark.parametrize("window", [4, 8, 64])
def test_a_window_counts_virtual_tokens(window: int, method: str, tiny_model: Make) -> None:
    model, rows = made(method, "mistral", tiny_model, sliding_window=window), random_rows(6)
    objective, _ = prepare(model, rows, 0)  # compares with peft's own forward, or raises
    assert objective.packed


@pytest.mark.parametrize("method", CHOICES)
def test_checkpointing_changes_nothing(method: str, tiny_model: Make) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = made(method, "gpt2", tiny_model)
        if checkpointing:
            forward.checkpoint_activations(model)
        objective, _ = prepare(model, random_rows(5), 0)
        objective.train()(collate(random_rows(5), packed=True))[0].backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_padded_prefix_refuses_checkpointing(tiny_model: Make) -> None:
    """Checkpointed layers drop the cache, so the prefix would have no effect and no gradient."""
    model = made("prefix", "llama", tiny_model)
    forward.checkpoint_activations(model)
    use_standard(forward.core_of(model))
    with pytest.raises(ModelError, match="takes a prefix only through its cache"):
        Objective(model, packed=False).train()(collate(random_rows(3), packed=False))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("method", CHOICES)
def test_generation_is_that_of_peft(method: str, name: str, tiny_model: Make, tiny_tokenizer: Any) -> None:
    from tuneloop.render.template import Renderer

    model = made(method, name, tiny_model)
    use_packed(forward.core_of(model))  # as it is while training
    draw = np.random.default_rng(0)
    begin = draw.integers(3, 300, 12).tolist()
    several = [draw.integers(3, 300, length).tolist() for length in (3, 9, 1, 5)]
    for prompts in ([begin + own for own in several], several, [several[0]]):
        done = TransformersEngine(model, Renderer(tiny_tokenizer)).complete(prompts, Decoding(6), stop_ids=[1])
        assert forward.core_of(model).config._attn_implementation == "tuneloop_packed"
        with torch.no_grad():
            use_standard(forward.core_of(model))
            model.eval()
            for prompt, completion in zip(prompts, done, strict=True):
                ids = torch.tensor([prompt])
                out = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=6,
                    do_sample=False,
                    eos_token_id=1,
                )
                assert out[0, len(prompt) :].tolist() == list(completion.ids) + [1] * completion.finished
            use_packed(forward.core_of(model))


def test_the_context_counts_virtual_tokens(tiny_model: Make, tiny_tokenizer: Any) -> None:
    from tuneloop.render.template import Renderer

    model = made("prompt", "gpt2", tiny_model, n_positions=20)
    prepare(model, random_rows(3, longest=15, shortest=15), 0)
    with pytest.raises(DataError, match=r"longest row has 16 tokens, with 5 virtual .* at most 15"):
        prepare(model, random_rows(3, longest=16, shortest=16), 0)
    engine = TransformersEngine(model, Renderer(tiny_tokenizer))
    fits, full = engine.complete([[5] * 13, [5] * 15], Decoding(9), stop_ids=[])
    assert len(fits.ids) == 2 and fits.refused is None
    assert full.refused is not None and "15 tokens and the adapter 5 virtual ones" in full.refused


def test_a_disabled_adapter_is_the_base(tiny_model: Make) -> None:
    rows, plain = random_rows(4), tiny_model()
    expected = forward.nll(prepare(plain, rows, 0)[0], rows, pad_id=0, budget=99)
    for method in CHOICES:
        model = made(method, "llama", tiny_model)
        objective, _ = prepare(model, rows, 0)
        assert forward.nll(objective, rows, pad_id=0, budget=99) != expected
        with model.disable_adapter():
            assert virtual.count(model) == 0
            assert forward.nll(objective, rows, pad_id=0, budget=99) == expected


def test_prefix_refuses_what_peft_cannot_hold(tiny_model: Make) -> None:
    with pytest.raises(ModelError, match=r"DeepseekV3ForCausalLM has 1 heads of size 16 .* use method prompt"):
        METHODS.make("prefix").apply(tiny_model("deepseek_v3"))
    with pytest.raises(ModelError, match=r"needs layers of attention alone.* use method prompt"):
        METHODS.make("prefix").apply(tiny_model("falcon_h1"))


def test_a_prefix_longer_than_the_window_starts_as_its_text(tiny_model: Make) -> None:
    keys, values = virtual.keys_and_values(tiny_model("gemma2"), list(range(3, 23)))[0]
    assert keys.shape == values.shape == (1, 2, 20, 8)
