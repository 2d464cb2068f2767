"""How many tokens go through the model at once, found by trying.

It does not change what is learnt: micro-batches of any size add up to the same gradient.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tuneloop.core.errors import TrainingError
from tuneloop.forward.plan import token_budget
from tuneloop.forward.ways import wait_for
from tuneloop.tune.config import Memory
from tuneloop.tune.terms import Terms

SMALLEST = 256
"""Tokens to begin with."""
WORTH = 1.03
"""A larger budget must be this much faster to be worth its memory."""


def given_budget(memory: Memory, device: str) -> int:
    """Tokens of a micro-batch: what the recipe says, else (and before the fastest is found) what suits the device."""
    return memory.token_budget if isinstance(memory.token_budget, int) else token_budget(device)


@dataclass(frozen=True)
class Trial:
    """One budget that was tried: tokens in the batch and its seconds forward and backward; None: out of memory."""

    budget: int
    tokens: int
    seconds: float | None

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0


def find_budget(terms: Terms, batch_size: int, may_hold: int | None = None) -> tuple[int, list[Trial]]:
    """The budget with the most tokens a second, and all that were tried.

    Doubles the budget, each time with the longest rows that there are (the worst case) and all that the run minimises
    of them (pairs, a teacher), until memory does not suffice,
    until a whole step fits, or at `may_hold` tokens, where the caller knows that memory ends (a CPU's process is killed
    instead of getting an error). Leaves weights, gradients and random state as they were.
    Raises TrainingError when not even the smallest fits.
    """
    objective, costs = terms.objective, terms.costs
    longest = sorted(range(len(costs)), key=lambda row: -costs[row])[:batch_size]
    whole = sum(costs[row] for row in longest)
    device = next(objective.parameters()).device
    trials: list[Trial] = []
    budget = max(SMALLEST, 1 << (costs[longest[0]] - 1).bit_length())
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        while not trials or (trials[-1].seconds and trials[-1].tokens < whole and budget <= (may_hold or budget)):
            picked = replace(terms, token_budget=budget).micro_batches(longest)[0]
            trials.append(_tried(replace(terms, token_budget=budget), picked, sum(costs[row] for row in picked)))
            budget *= 2
    objective.zero_grad(set_to_none=True)
    good = [trial for trial in trials if trial.seconds]
    if not good:
        raise TrainingError(
            f"out of memory with the smallest micro-batch, {trials[0].tokens} tokens of the longest rows: lower "
            "tune.max_length, set tune.memory.gradient_checkpointing, or take method lora or a smaller base"
        )
    chosen = good[0]
    for trial in good[1:]:
        chosen = trial if trial.rate > WORTH * chosen.rate else chosen
    return chosen.budget, trials


def _tried(terms: Terms, picked: Sequence[int], tokens: int) -> Trial:
    objective, budget, seconds = terms.objective, terms.token_budget, 0.0
    device = next(objective.parameters()).device
    objective.train()
    try:
        for _ in range(2):  # the first one also pays for allocations and lazy set-up
            started = time.perf_counter()
            objective.zero_grad(set_to_none=True)
            next(terms.parts(picked, 0, 0, 1, 1.0))[0].backward()
            wait_for(device)
            seconds = time.perf_counter() - started
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        objective.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return Trial(budget, tokens, None)
    return Trial(budget, tokens, seconds)


def in_words(chosen: int, trials: Sequence[Trial]) -> str:
    """The trials in a line."""
    tried = (f"{t.budget:,}: {f'{t.rate:,.0f} tokens/s' if t.seconds else 'out of memory'}" for t in trials)
    return f"{chosen:,} tokens, found by trying ({'; '.join(tried)})"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory did not suffice; on CPU torch has no class of its own for that."""
    told = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in told
