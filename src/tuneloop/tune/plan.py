"""Which rows each optimizer step takes, and how many tokens that is to compute, against padding each step.

Knows lengths, tokens and seeds; no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tuneloop.forward.mixing import Mixture
from tuneloop.forward.plan import epoch_steps
from tuneloop.forward.tree import families, in_order
from tuneloop.render.flat import ids_of
from tuneloop.render.rendered import Rendered
from tuneloop.tune.config import TuneConfig

SAMPLED = 200
"""Steps whose cost stands for those of an epoch."""


@dataclass(frozen=True)
class Order:
    """The rows of every epoch. All follows from rows, seed and epoch, so a resumed run finds its place at once."""

    config: TuneConfig
    rows: Sequence[Rendered]
    seed: int
    mixture: Mixture | None = None
    """Which rows an epoch has; None: all of them once."""

    def epoch(self, number: int) -> list[list[int]]:
        """Row numbers of each step of an epoch."""
        drawn = np.array(self.mixture.plan_epoch(number) if self.mixture else range(len(self.rows)))
        alike = None if self._families is None else self._families[drawn]
        steps = epoch_steps(len(drawn), self.config.batch_size, self.seed, number, bool(self.config.shuffle), alike)
        return [drawn[step].tolist() for step in steps]

    @cached_property
    def _families(self) -> np.ndarray | None:
        if self.config.shuffle != "families":
            return None
        # several families in each step: steps of a single one would each pull the weights to one side
        return families(ids_of(self.rows), max(2, self.config.batch_size // 4))


@dataclass(frozen=True)
class Cost:
    """Tokens of an epoch: as they stand in the rows, padded to the longest of their step, and without repetition."""

    tokens: int
    padded: int
    shared: int

    @classmethod
    def of(cls, rows: Sequence[Rendered], steps: Sequence[Sequence[int]]) -> Cost:
        """Of the steps of an epoch; of more than SAMPLED, so many of them are counted and stand for all."""
        picked = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, SAMPLED).astype(int))]
        sums = np.zeros(3)
        ids = ids_of(rows)
        for step in picked:
            lengths = [len(ids[row]) for row in step]
            known = sum(in_order([ids[row] for row in step], range(len(step)))[1])
            sums += (sum(lengths), max(lengths) * len(lengths), sum(lengths) - known)
        return cls(*(int(value) for value in (sums * len(steps) / len(picked)).round()))

    def in_words(self, *, packed: bool, share: bool) -> str:
        """What is not computed, where rows are packed and their common beginnings are shared."""
        computed = self.shared if share and packed else self.tokens if packed else self.padded
        saved = [f"{1 - self.tokens / self.padded:.0%} padding avoided"] if packed else []
        if share and packed and self.shared < self.tokens:
            saved.append(f"{1 - self.shared / self.tokens:.0%} of the tokens are beginnings shared within a step")
        if not saved or computed == self.padded:
            return f"{computed:,} tokens an epoch are computed"
        return (
            f"{computed:,} tokens an epoch are computed instead of {self.padded:,} padded ones "
            f"({'; '.join(saved)}): about {self.padded / computed:.1f} × less work"
        )
