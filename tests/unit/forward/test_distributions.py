from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from toy import random_rows

from tuneloop.core.errors import ModelError
from tuneloop.forward import distributions as module
from tuneloop.forward.distributions import distributions, divergences
from tuneloop.forward.objective import prepare


def direct(new: Any, old: Any, ids: list[int]) -> float:
    """Σ KL(new ‖ old) over the positions of one row, from the models' own logits in double precision."""
    with torch.inference_mode():
        p, q = (model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1) for model in (new, old))
    return float((p.exp() * (p - q)).sum())


@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon"])
def test_kl_is_the_direct_one_over_the_whole_vocabulary(
    tiny_model: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed and padded, in several blocks; the old model is gone when the new one comes."""
    monkeypatch.setattr(module, "POSITIONS", 40)
    old, new, rows = tiny_model(name, seed=0), tiny_model(name, seed=1), random_rows(7)
    expected = [direct(new, old, row.ids.tolist()) for row in rows]
    kept = []
    for model in (old, new):
        objective, _ = prepare(model, rows, 0)
        kept.append(distributions(objective, rows, pad_id=0, budget=60))
        model.get_output_embeddings().weight.data.zero_()  # what was kept does not follow the model
    found = divergences(kept[1], kept[0])
    assert [count for _, count in found] == [len(row) for row in rows]
    assert [total for total, _ in found] == pytest.approx(expected, rel=1e-4)
    assert [total for total, _ in divergences(kept[0], kept[0])] == [0.0] * 7


def test_other_tokens_cannot_be_compared(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    one, other = random_rows(2), random_rows(2, seed=1)
    objective, _ = prepare(model, one, 0)
    kept = [distributions(objective, rows, pad_id=0, budget=60) for rows in (one, other)]
    with pytest.raises(ModelError, match="same tokens"):
        divergences(kept[0], kept[1])
