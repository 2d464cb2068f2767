"""What a tuning will need of memory, and which settings would need less when it did not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tuneloop.core.errors import TrainingError
from tuneloop.models import fit
from tuneloop.models.fit import GIB, Fit
from tuneloop.tune.budget import is_out_of_memory
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.model import applied
from tuneloop.tune.teachers import memory_of

SAFE = 0.8
"""Share of the memory of what failed that another setting may need, by estimate, to be recommended."""


@dataclass(frozen=True)
class Need:
    """What the estimate follows from; `tokens` are those of one forward pass, at least the longest row."""

    config: TuneConfig
    architecture: PreTrainedConfig
    tokens: int
    dtype: torch.dtype
    device: str
    supervised_share: float
    held: int = 0
    """Bytes of weights that are in memory already, and so no longer free."""

    def fit(self) -> Fit:
        """The estimate, from the meta device alone."""
        trained = _on_meta(self.config, self.architecture)
        trainable = self.config.method.count(trained)
        changed = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        found = fit.estimate(
            self.architecture,
            tokens_per_step=self.tokens,
            dtype=self.dtype,
            trainable=trainable,
            teachers=memory_of(self.config, self.architecture, changed, self.dtype),
            state_bytes=self.config.optimizer.state_bytes,
            beside=self.config.method.adapter,
            quantization=self.config.method.quantization,
            checkpointing=self.config.memory.gradient_checkpointing,
            supervised_share=self.supervised_share,
            device=self.device,
        )
        return replace(found, available=found.available + self.held)

    def tokens_that_fit(self) -> int:
        """How many tokens free memory holds; the estimate is a straight line in them."""
        small, double = (replace(self, tokens=tokens).fit() for tokens in (1024, 2048))
        a_token = (double.total - small.total) / 1024
        return int((small.available - small.total) / a_token) + 1024


def trainable_parameters(config: TuneConfig, architecture: PreTrainedConfig) -> int:
    """How many parameters the method trains, counted without memory for any."""
    return config.method.count(_on_meta(config, architecture))


def _on_meta(config: TuneConfig, architecture: PreTrainedConfig) -> Any:
    with torch.device("meta"):
        return applied(config, AutoModelForCausalLM.from_config(architecture))


def remedies(failed: Need, longest: int) -> list[tuple[str, Need]]:
    """Settings that need less, as they are typed, the mildest first; `longest` row or pair in tokens."""
    shorter = longest // (4 if failed.config.objective.orpo else 2)
    half = max(failed.tokens // 2, longest)
    lighter, checked = {"token_budget": half}, {"gradient_checkpointing": True}
    changes = [
        ({"memory": lighter}, half, [f"memory.token_budget={half}"]),
        ({"memory": checked}, failed.tokens, ["memory.gradient_checkpointing=true"]),
        ({"memory": lighter | checked}, half, [f"memory.token_budget={half}", "memory.gradient_checkpointing=true"]),
        ({"method": "lora"}, half, ["method=lora", f"memory.token_budget={half}"]),
        ({"max_length": max(8, shorter)}, longest // 2, [f"max_length={max(8, shorter)}"]),
    ]
    given = failed.config.model_dump(mode="json")
    found: list[tuple[str, Need]] = []
    for change, tokens, settings in changes:
        if "method" in change and failed.config.method.adapter:
            continue
        config = TuneConfig.model_validate(given | change)
        found.append((" ".join(f"--set tune.{one}" for one in settings), replace(failed, config=config, tokens=tokens)))
    return found


@contextmanager
def explained(need: Need, longest: int) -> Iterator[None]:
    """Turns running out of memory inside the block into a TrainingError with up to three settings that would fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = need.fit().total
        lines = [(text, other.fit().total) for text, other in remedies(need, longest)]
        fitting = [f"\n  {text}   (about {size / failed:.0%} of that)" for text, size in lines if size <= SAFE * failed]
        advice = f"Run it again with one of these:{''.join(fitting[:3])}" if fitting else "Take a smaller base."
        raise TrainingError(
            f"out of memory with up to {need.tokens:,} tokens at once (estimated need {failed / GIB:.2f} GiB). {advice}"
        ) from error
