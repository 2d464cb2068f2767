"""Methods beside parts of an objective that need pairs, a teacher or the base: a step in pieces is the whole step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import conversations, lines_of, tune_in

from tuneloop.core.conversation import Example, Message

Folder = Callable[..., Path]
SMALL = {"rank": 4, "alpha": 8}
METHODS: dict[str, Any] = {
    "lora head": {"lora": {**SMALL, "targets": ["auto", "embeddings"], "modules_to_save": ["head"]}},
    "pissa": {"lora": {**SMALL, "init": "pissa"}},
    "qlora": {"qlora": SMALL},
    "adapter": {"adapter": {"reduction": 4}},
    "prompt": {"prompt": {"tokens": 5}},
    "prefix": {"prefix": {"tokens": 5}},
    "sparse": {"sparse": {"fraction": 0.1}},
    "freeze": {"freeze": {"layers": 1}},
}
PADDED = ("adapter", "prompt")
CASES = [*((method, "llama") for method in METHODS), *((method, "falcon") for method in PADDED)]


def pairs(count: int, start: int = 0) -> list[Example]:
    return [
        replace(e, rejected=(Message("assistant", f"{e.answer.content} or 9"),)) for e in conversations(count, start)
    ]


@pytest.mark.parametrize("objective", ["orpo", "distill"])
@pytest.mark.parametrize(("method", "name"), CASES)
def test_a_step_in_pieces_is_the_step(
    method: str, name: str, objective: str, model_folder: Folder, tmp_path: Path
) -> None:
    """In bits of a row with recomputed activations, and at once; both beside a base that is held on to."""
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    part = {"orpo": {"orpo": 0.3}, "distill": {"distill": {"teacher": str(model_folder(name, 1))}}}[objective]
    found = []
    for number, memory in enumerate(({"token_budget": 4096}, {"token_budget": 8, "gradient_checkpointing": True})):
        run, _ = tune_in(
            tmp_path / str(number), {"base": str(model_folder(name))}, train=pairs(6), val=pairs(3, 50), memory=memory,
            prompts=conversations(5, 90), objective={**part, "keep": {"rows": 3}}, method=METHODS[method], steps=2,
            learning_rate=1e-3,
        )  # fmt: skip
        found.append(lines_of(run.path))
    for whole, pieces in zip(*found, strict=True):
        assert "keep_kl" in whole and ("orpo_loss" in whole or "distill_kl" in whole)
        assert pieces == pytest.approx(whole, rel=2e-4, abs=1e-6)
