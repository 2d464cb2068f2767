from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tuneloop.generate import exact, sampling, transformers_engine
from tuneloop.generate.engine import Completion, Decoding
from tuneloop.generate.sampling import greedy, sample
from tuneloop.generate.transformers_engine import TransformersEngine

STOPS = {3, 17}


class Words:
    stop_ids = STOPS

    def answer_text(self, ids: Any) -> str:
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(1)
    small = LlamaConfig(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(small).float().eval()


@pytest.mark.parametrize("temperature", [1e-5, 1e-7, 1e-40, 1e-300])
@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_as_cold_as_can_be_is_greedy(temperature: float, more: dict[str, Any]) -> None:
    """At 1e-300 all was NaN, and an answer ended with its first token."""
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(0)) * 30
    found = sample(logits, torch.rand(64), Decoding(1, temperature, **more))
    assert found.tolist() == greedy(logits).tolist()


def drawn(model: Any, prompts: list[list[int]], decoding: Decoding, seeds: list[int]) -> list[Completion]:
    return TransformersEngine(model, Words()).complete(prompts, decoding, seeds=seeds)  # type: ignore[arg-type]


def shares(logits_V: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """The oracle: transformers' own filters, in its order."""
    scores = TemperatureLogitsWarper(decoding.temperature)(torch.empty(0), logits_V[None].double())  # type: ignore[arg-type]
    if decoding.top_k is not None:
        scores = TopKLogitsWarper(decoding.top_k)(torch.empty(0), scores)  # type: ignore[arg-type]
    if decoding.top_p < 1:
        scores = TopPLogitsWarper(decoding.top_p)(torch.empty(0), scores)  # type: ignore[arg-type]
    return scores[0].softmax(-1)


WAYS = [
    Decoding(1, temperature=1.0),
    Decoding(1, temperature=0.5),
    Decoding(1, temperature=1.3, top_k=5),
    Decoding(1, temperature=1.0, top_p=0.8),
    Decoding(1, temperature=1.2, top_p=0.6, top_k=7),
    Decoding(1, temperature=1.0, top_p=0.05),
    Decoding(1, temperature=1.0, top_k=1),
]


@pytest.mark.parametrize("likeliest", [4, 1024])
@pytest.mark.parametrize("decoding", WAYS, ids=str)
def test_every_token_gets_exactly_its_share(
    decoding: Decoding, likeliest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An even grid of numbers gives each token as many of them as its probability says."""
    monkeypatch.setattr(sampling, "LIKELIEST", likeliest)
    torch.manual_seed(0)
    logits_V, count = torch.randn(40) * 2, 20_000
    grid_B = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = sample(logits_V.expand(count, -1), grid_B, decoding).bincount(minlength=40) / count
    assert float((found - shares(logits_V, decoding)).abs().max()) < 2 / count
    assert bool((found[shares(logits_V, decoding) == 0] == 0).all()), "a token that was filtered out"


def test_numbers_at_the_ends_give_tokens_that_may_come() -> None:
    logits = torch.tensor([[-torch.inf, 2.0, -torch.inf, 1.0, -torch.inf]])
    for decoding in (Decoding(1, 1.0), Decoding(1, 1.0, top_k=2), Decoding(1, 1.0, top_p=0.9)):
        for number in (0.0, 1.0 - 2**-53, 1.0):
            assert int(sample(logits, torch.tensor([number], dtype=torch.float64), decoding)) in (1, 3)


def test_greedy_takes_the_first_of_equals_as_transformers_does() -> None:
    logits = torch.tensor([[0.0, 5.0, 5.0], [7.0, 7.0, 1.0]], dtype=torch.bfloat16)
    assert greedy(logits).tolist() == [1, 0]


def test_samples_follow_the_models_distribution(model: Any) -> None:
    """Chi-square over first tokens and over second tokens after the likeliest first one."""
    prompt, count, decoding = [5, 6, 7], 4000, Decoding(2, temperature=1.0, top_k=12)
    found = drawn(model, [prompt] * count, decoding, list(range(count)))
    ids = [(*answer.ids, *([] if len(answer.ids) == 2 else [-1])) for answer in found]
    logits_V = model(torch.tensor([prompt])).logits[0, -1].detach()
    expected = shares(logits_V, decoding)
    first = torch.tensor([one[0] for one in ids if one[0] >= 0]).bincount(minlength=24)
    likeliest = max((token for token in range(24) if token not in STOPS), key=lambda token: float(expected[token]))
    stopped = sum(float(expected[token]) for token in STOPS)
    open_ones = [token for token in range(24) if expected[token] > 0 and token not in STOPS]
    observed = [*(int(first[token]) for token in open_ones), count - int(first.sum())]
    wanted = [*(float(expected[token]) * count for token in open_ones), stopped * count]
    if stopped == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    assert stats.chisquare(observed, wanted).pvalue > 1e-3

    after = shares(model(torch.tensor([[*prompt, likeliest]])).logits[0, -1].detach(), decoding)
    second = [one[1] for one in ids if one[0] == likeliest]
    kept = [token for token in range(24) if after[token] > 0 and token not in STOPS]
    observed = [second.count(token) for token in kept]
    part = float(sum(after[token] for token in kept))
    wanted = [float(after[token]) / part * sum(observed) for token in kept]
    assert sum(observed) > 200 and stats.chisquare(observed, wanted).pvalue > 1e-3


def test_a_rows_samples_are_its_own(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same sample whatever stands beside it and in whichever form; another gives another."""
    prompts = [[row % 20 + 4] * (row % 5 + 1) for row in range(12)]
    seeds, decoding = list(range(100, 112)), Decoding(12, temperature=1.5, top_p=0.95)
    together = drawn(model, prompts, decoding, seeds)
    alone = [drawn(model, [prompt], decoding, [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert together == alone
    monkeypatch.setattr(transformers_engine, "SEATS", 3)
    assert drawn(model, prompts[::-1], decoding, seeds[::-1]) == together[::-1]
    monkeypatch.setattr(exact, "bytes_a_token", lambda *_: None)
    assert drawn(model, prompts, decoding, seeds) == together
    assert drawn(model, prompts, decoding, [seed + 1 for seed in seeds]) != together
    several = drawn(model, [prompts[0]] * 20, decoding, list(range(20)))
    assert len(set(several)) > 10, "samples of one prompt differ"


@pytest.mark.parametrize("size", [1, 255, 256, 511, 512, 513, 767, 1_000, 4_096, 50_257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_takes_the_first_of_the_likeliest(size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(size)
    logits = torch.randint(-9, 9, (40, size)).to(dtype)  # many are equal
    logits[:20] = torch.randn(20, size).to(dtype)
    logits[20:23] = float("-inf")
    logits[21, -1] = logits[22, size // 2] = 0
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert greedy(logits).tolist() == expected
