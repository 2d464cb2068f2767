from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from architectures import PACKED, PADDED
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen3Config

from tuneloop.core.errors import ModelError
from tuneloop.forward import attention
from tuneloop.generate import exact, padded, slots, transformers_engine
from tuneloop.generate.decoding import Row
from tuneloop.generate.engine import Completion, Decoding
from tuneloop.generate.transformers_engine import TransformersEngine

VOCABULARY = 60
STOPS = {3, 5, 17, 40, 41}  # several, so that random models meet one now and then
NEW = 7
GREEDY = Decoding(NEW)


class Words:
    """The part of a renderer that an engine needs."""

    stop_ids = STOPS

    def answer_text(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def config(kind: str) -> Any:
    small: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
        "initializer_range": 0.4,
    }  # fmt: skip
    match kind:
        case "llama":
            return LlamaConfig(**small)
        case "qwen3":
            return Qwen3Config(**small)
        case "gemma3":  # windows shorter than the prompts beside full attention
            return Gemma3TextConfig(
                **small, sliding_window=6, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
            )
        case _:
            return GPT2Config(
                vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.4
            )


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen3", "gemma3"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config(request.param)).float().eval()


def some_prompts(count: int = 24, shared: int = 0, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    beginning = [rng.randrange(VOCABULARY) for _ in range(shared)]
    lengths = [rng.choice([1, 3, 9, 10, 11, 20]) for _ in range(count)]
    return [beginning + [rng.randrange(VOCABULARY) for _ in range(length)] for length in lengths]


def one_by_one(model: Any, prompts: list[list[int]], new: int = NEW) -> list[Completion]:
    """The oracle: transformers' own greedy generation, one prompt at a time."""
    found: list[Completion] = []
    for prompt in prompts:
        ids = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=new,
            do_sample=False, eos_token_id=sorted(STOPS), pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        finished = ids[-1] in STOPS
        kept = ids[:-1] if finished else ids
        found.append(Completion(tuple(kept), Words().answer_text(kept), finished))
    return found


@pytest.fixture(scope="module")
def generated(model: Any) -> Callable[[int], list[Completion]]:
    """`generated(shared)`: what the oracle says to `some_prompts`, asked once for all forms and budgets."""
    return cache(lambda shared: one_by_one(model, some_prompts(shared=shared)))


@pytest.fixture(params=["slots", "padded"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the fast form where it is exact, and in the general one."""
    if request.param == "padded":
        monkeypatch.setattr(exact, "bytes_a_token", lambda *_: None)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("shared", [0, 12, 20])
@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_equals_generate_one_prompt_at_a_time(
    model: Any, generated: Callable[[int], list[Completion]], shared: int, batch_tokens: int
) -> None:
    prompts, expected = some_prompts(shared=shared), generated(shared)
    assert 0 < sum(completion.finished for completion in expected) < len(expected), "the test needs both kinds"
    told: dict[int, Completion] = {}
    engine = TransformersEngine(model, Words(), "", batch_tokens)
    assert engine.complete(prompts, GREEDY, done=told.__setitem__) == expected
    assert [told[place] for place in range(len(prompts))] == expected


@pytest.mark.parametrize("seats", [1, 3, 5])
def test_rows_take_the_places_of_those_that_are_finished(
    model: Any, seats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_engine, "SEATS", seats)
    monkeypatch.setattr(slots, "WORTH", 12)
    monkeypatch.setattr(slots, "SPARE", 1)  # slots must grow
    prompts = some_prompts(shared=17, seed=2)
    joins: list[tuple[int, int]] = []
    join = slots.Slots.join

    def counted(self: slots.Slots, new: Sequence[Sequence[int]]) -> torch.Tensor:
        joins.append((len(self), len(new)))
        return join(self, new)

    monkeypatch.setattr(slots.Slots, "join", counted)
    assert TransformersEngine(model, Words()).complete(prompts, GREEDY) == one_by_one(model, prompts)
    assert all(at_work + new <= seats for at_work, new in joins[1:])
    assert seats == 1 or any(at_work for at_work, _ in joins), "none joined those at work"


def test_padding_between_virtual_tokens_and_prompts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "bytes_a_token", lambda *_: None)
    monkeypatch.setattr(padded, "WASTE", 1.0)  # everything in one batch
    prompts = some_prompts(shared=9, seed=4)
    assert TransformersEngine(model, Words()).complete(prompts, GREEDY) == one_by_one(model, prompts)


@pytest.mark.usefixtures("form")
def test_equal_prompts_and_prompts_within_prompts(model: Any) -> None:
    prompts = [[7] * 20, [7] * 20, [7] * 24, [8] * 3, [8] * 3]
    assert TransformersEngine(model, Words()).complete(prompts, GREEDY) == one_by_one(model, prompts)


def test_refuses_what_has_no_room_and_stops_at_the_context(model: Any) -> None:
    prompts = [[], [1] * 64, [2] * 60, [1, 2]]
    told: dict[int, Completion] = {}
    engine = TransformersEngine(model, Words())
    found = engine.complete(prompts, Decoding(20), stop_ids=(), done=told.__setitem__)
    assert found[0].refused == "the prompt is empty"
    assert found[1].refused == "the prompt has 64 tokens, the model's context only 64"
    assert len(found[2].ids) == 4 and not found[2].finished
    assert len(found[3].ids) == 20
    assert [told[place] for place in range(4)] == found
    assert TransformersEngine(model, Words()).complete([], Decoding(3), stop_ids=()) == []


def test_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config("llama")).train()
    prompts = some_prompts(4)
    expected = one_by_one(model.eval(), prompts)
    model.train()
    attention.use_packed(model)
    assert TransformersEngine(model, Words()).complete(prompts, GREEDY) == expected
    assert model.training and model.config._attn_implementation == attention.NAME

    def stopped(place: int, completion: Completion) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TransformersEngine(model, Words()).complete(prompts, GREEDY, done=stopped)
    assert (
        model.training and model.config._attn_implementation == attention.NAME and not torch.is_inference_mode_enabled()
    )


def test_peft_models_with_and_without_their_adapter() -> None:
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config("llama")).eval()
    prompts = some_prompts(6)
    before = one_by_one(plain, prompts)
    tuned: Any = get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    engine = TransformersEngine(tuned, Words())
    with tuned.disable_adapter():
        assert engine.complete(prompts, GREEDY) == before
    after = engine.complete(prompts, GREEDY)
    assert after == one_by_one(tuned.eval(), prompts) and after != before


def short_of_memory(usual: Callable[..., Any]) -> Callable[..., Any]:
    """The method, for three rows at most."""

    def limited(self: Any, given: Any) -> Any:
        if len(given) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return usual(self, given)

    return limited


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("when", ["join", "step"])
def test_out_of_memory_halves_the_rows_at_work(model: Any, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (slots.Slots, padded.Padded):
        monkeypatch.setattr(kind, when, short_of_memory(getattr(kind, when)))
    prompts = [[4] * 10, *some_prompts(9)]
    short, told = Decoding(3), list[int]()
    found = TransformersEngine(model, Words()).complete(prompts, short, done=lambda place, _: told.append(place))
    assert found == one_by_one(model, prompts, 3) and sorted(told) == list(range(10))


def test_one_row_that_does_not_fit_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_config(config("llama")).eval()

    def never(self: Any, prompts: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(padded.Padded, "join", never)
    monkeypatch.setattr(exact, "bytes_a_token", lambda *_: None)
    with pytest.raises(ModelError, match="out of memory on one prompt of 5 tokens; use a smaller max_new_tokens"):
        TransformersEngine(model, Words()).complete([[1] * 5] * 4, GREEDY)


@pytest.mark.parametrize("budget", [1, 50, 300, 10_000])
def test_batches_hold_every_row_once_within_the_budget(model: Any, budget: int) -> None:
    lengths = sorted((len(prompt) for prompt in some_prompts(300, seed=9)), reverse=True)
    for padding in (True, False):
        form = padded.Padded(model, None, 0, 50, 100)
        form._takes_padding = lambda padding=padding: padding
        at = 0
        while at < len(lengths):
            count = form.together(lengths[at:], budget)
            batch = lengths[at : at + count]
            at += count
            assert 1 <= count <= 50 and (batch[0] * count <= budget or count == 1)
            waste = batch[0] * count - sum(batch)
            assert waste <= (max(padded.WASTE * batch[0] * count, padded.FREE) if padding else 0)
        assert at == len(lengths)


def test_few_prompts_do_not_stop_those_at_work(model: Any) -> None:
    form = slots.Slots(model, None, 0, 8)
    assert form.together([100] * 20, 4096) == 8
    assert form.together([5000], 4096) == 1, "longer than a join may be, but nothing else is there"
    form.lengths_B = torch.ones(4, dtype=torch.long)
    assert form.together([100] * 20, 4096) == 0
    assert form.together([600] * 20, 4096) == 4
    assert form.together([100] * 3, 4096) == 3, "all that are left"
    form.lengths_B = torch.ones(8, dtype=torch.long)
    assert form.together([3000], 4096) == 0


@pytest.mark.parametrize("name", (*PACKED, *PADDED))
def test_every_architecture_equals_generate(name: str, tiny_model: Callable[..., Any]) -> None:
    """Slots, padding, and caches of every kind: Mamba takes its own under another name."""
    model = tiny_model(name)
    longest = [Row(0, [1] * 500, 12)]
    fast = transformers_engine._bytes_in_slots(model, None, 0, longest, 512)
    assert (fast is not None) == (name in PACKED)
    prompts = some_prompts(6, shared=12, seed=3)
    found = TransformersEngine(model, Words()).complete(prompts, GREEDY)  # type: ignore[arg-type]
    assert found == one_by_one(model, prompts)
