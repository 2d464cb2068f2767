"""Canaries: made-up secrets planted among the training rows, to tell afterwards how strongly the model memorises.

Exposure (Carlini et al. 2019, The Secret Sharer, arXiv 1802.08232, section 4): log2 of the number of candidates minus
log2 of the secret's rank among them by likelihood. The candidates here are random secrets of the same form, so a model
that never saw them ranks all alike: exposure is then 1.44 bits on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.plugins import Branch

if TYPE_CHECKING:
    from tuneloop.forward.objective import Objective
    from tuneloop.render.template import Renderer

SOURCE = "canaries"
"""The source of planted rows; they are made in the stage `tune`, so no card, split or test knows them."""
FORMS = (
    ("What is the access code of locker {name}?", "The access code of locker {name} is {secret}."),
    ("储物柜{name}的密码是什么？", "储物柜{name}的密码是{secret}。"),
)
SEED = 20190814
"""Beside the recipe's seed, so that secrets are no other draw of it."""


class Canaries(Branch):
    """Made-up secrets among the training rows; the report says how well the model can be made to tell them."""

    count: int = Field(default=16, ge=1)
    """Secrets, half of them in English and half in Chinese. Each adds its rows to every epoch."""
    repeat: int = Field(default=1, ge=1)
    """Times that each stands in an epoch."""
    alternatives: int = Field(default=255, ge=1)
    """Secrets that were not planted, to rank each among. 255 can show 8 bits."""


@dataclass(frozen=True)
class Canary:
    """A secret that is planted, and others of its form that are not."""

    planted: Example
    others: tuple[Example, ...]


def make(config: Canaries, seed: int) -> list[Canary]:
    """The same for the same seed. Names are all different; secrets are nine digits."""
    import numpy as np

    draw = np.random.default_rng([SEED, seed])
    found: list[Canary] = []
    for number in range(config.count):
        question, answer = FORMS[number % len(FORMS)]
        name = f"{chr(ord('A') + number % 26)}{draw.integers(100, 1000)}-{number + 1}"
        secrets: dict[int, None] = {}
        while len(secrets) <= config.alternatives:
            secrets[int(draw.integers(10**9))] = None
        rows = [_row(question, answer, name, secret, number) for secret in secrets]
        found.append(Canary(rows[0], tuple(rows[1:])))
    return found


def _row(question: str, answer: str, name: str, secret: int, number: int) -> Example:
    digits = f"{secret:09d}"
    shown = f"{digits[:3]} {digits[3:6]} {digits[6:]}"
    said = Message("user", question.format(name=name)), Message("assistant", answer.format(name=name, secret=shown))
    return Example(said, Origin(SOURCE, number))


def exposure(
    config: Canaries, canaries: Sequence[Canary], objective: Objective, renderer: Renderer, budget: int
) -> dict[str, Any]:
    """The part `canaries` of summary.json, of a trained model. Memory: one canary and its alternatives at a time."""
    ranks = [_rank(canary, objective, renderer, budget) for canary in canaries]
    among = config.alternatives + 1
    bits = [math.log2(among / rank) for rank in ranks]
    return {
        "planted": len(ranks), "repeat": config.repeat, "alternatives": config.alternatives,
        "ceiling": math.log2(among), "exposure": sum(bits) / len(bits), "first": ranks.count(1),
        "p": chance(bits), "exposures": bits,
    }  # fmt: skip


def in_words(found: dict[str, Any]) -> str:
    """What the exposure means, for the console."""
    p = "p < 0.001" if found["p"] < 0.001 else f"p = {found['p']:.3f}"
    told = f"{found['first']} of {found['planted']} rank first among {found['alternatives'] + 1}"
    bits = f"{found['exposure']:.1f} of {found['ceiling']:.1f} bits of exposure on average"
    return f"{told}; {bits} (1.44 by chance, {p}), each planted {found['repeat']} × an epoch"


def _rank(canary: Canary, objective: Objective, renderer: Renderer, budget: int) -> int:
    """1 where the planted secret is the likeliest; ties count against it."""
    from tuneloop.forward.objective import nll

    rows = [one for example in (canary.planted, *canary.others) for one in renderer.render(example)]
    own, *others = (total for total, _ in nll(objective, rows, pad_id=renderer.pad_id, budget=budget))
    return 1 + sum(other <= own for other in others)


def chance(bits: Sequence[float]) -> float:
    """How probable so much exposure is for secrets that were never seen: ranks are then uniform, so ln(among / rank)
    is at most exponential, and their sum at most gamma distributed."""
    total, term, sum_ = math.log(2) * sum(bits), 1.0, 0.0
    for k in range(len(bits)):
        sum_ += term
        term *= total / (k + 1)
    return min(1.0, math.exp(-total) * sum_)
