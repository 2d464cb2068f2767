"""What a step minimises: the terms of `tune.objective`, micro-batch by micro-batch, each divided by its whole step.

Every term is a sum over rows, pairs or positions with a divisor that is known before the first micro-batch, so that
micro-batches and ranks only add up. Shapes: N scored positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tuneloop.forward.batch import Batch, everywhere
from tuneloop.forward.divergence import chunked_divergence
from tuneloop.forward.loss import Shaping, chunked_nll, token_nll
from tuneloop.forward.mixing import draw
from tuneloop.forward.objective import Objective
from tuneloop.forward.plan import micro_batches, share_of_rank
from tuneloop.forward.preference import mean_log_p, odds_ratio_loss
from tuneloop.render.flat import ids_of, lengths_of
from tuneloop.render.rendered import Rendered
from tuneloop.tune.moe import Balance
from tuneloop.tune.objective import ObjectiveConfig
from tuneloop.tune.pairs import weight_of
from tuneloop.tune.teachers import Teacher

Part = tuple[Tensor, dict[str, Tensor]]
"""Of a micro-batch: what to differentiate, times the loss scale, and its columns without scale and gradient."""
KEPT = 1 << 20
"""In the place of a source's number: the rows of `keep` are drawn apart from those of any mix."""


@dataclass(frozen=True)
class Extras:
    """What terms need beside the rows themselves."""

    rejected: Sequence[Rendered] = ()
    """The other answer of each row."""
    teacher: Teacher | None = None
    """Whom `distill` asks."""
    base: Teacher | None = None
    """The model as it was, for `keep`."""
    prompts: Sequence[Rendered] = ()
    """The rows of `keep`."""
    balance: Balance | None = None
    """The router loss of a mixture-of-experts model."""


@dataclass(frozen=True)
class Terms:
    """The terms of a run over its rows."""

    config: ObjectiveConfig
    objective: Objective
    rows: Sequence[Rendered]
    extras: Extras
    seed: int
    pad_id: int
    token_budget: int

    @cached_property
    def tokens(self) -> list[int]:
        """Real tokens of each row, those of a rejected answer included."""
        own = lengths_of(self.rows)
        if not self.config.orpo:
            return own
        return [a + b for a, b in zip(own, lengths_of(self.extras.rejected), strict=True)]

    @cached_property
    def costs(self) -> list[int]:
        """What each row takes of the token budget: padded pairs are as long as the longer answer, twice."""
        own = self.objective.costs(self.rows)
        if not self.config.orpo:
            return own
        together = sum if self.objective.packed else lambda pair: 2 * max(pair)
        return [together(pair) for pair in zip(own, self.objective.costs(self.extras.rejected), strict=True)]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, the same on every rank and in every step."""
        config = self.config
        return (
            "objective",
            "loss",
            *(("distill_kl",) if config.distill else ()),
            *config.measured,
            *(("keep_kl",) if config.keep else ()),
            "computed_tokens",
        )

    def parts(self, picked: Sequence[int], step: int, rank: int, world: int, scale: float) -> Iterator[Part]:
        """This rank's micro-batches of the step over the rows `picked`; over all ranks they add up to the step's."""
        balance = self.extras.balance
        divisor = float(sum(self.rows[i].weights[1:].sum(dtype=np.float64) for i in picked))
        pairs = sum(weight_of(self.rows[i]) for i in picked) if self.config.orpo else 1.0
        micros = self.micro_batches(picked, rank, world)
        batches = [self._batch(self._of(micro)) for micro in micros]
        if balance:
            balance.begin(self.objective, batches, sum(self.tokens[i] for i in picked), world)
        for micro, batch in zip(micros, batches, strict=True):
            with balance.watching(batch) if balance else nullcontext():
                if self.config.orpo:
                    loss, columns = self._pairs(micro, batch, divisor, pairs, scale)
                else:
                    loss, columns = self._answers(micro, batch, divisor, scale)
            columns["computed_tokens"] = torch.tensor(batch.ids.numel())
            yield (loss + scale * balance.loss() if balance else loss), columns
        if self.config.keep:
            yield from self._kept(step, rank, world, scale)

    def micro_batches(self, picked: Sequence[int], rank: int = 0, world: int = 1) -> list[list[int]]:
        """How this rank's part of the step over the rows `picked` is divided."""
        mine = share_of_rank(self.costs, picked, rank, world, self._ids)
        return micro_batches(self.costs, mine, self.token_budget, packed=self.objective.packed, ids=self._ids)

    @cached_property
    def _ids(self) -> list[np.ndarray] | None:
        """What the rows begin with, where that is shared."""
        return ids_of(self.rows) if self.objective.share else None

    def _of(self, picked: Sequence[int]) -> list[Rendered]:
        """Rows, and after them their rejected answers."""
        rejected = [self.extras.rejected[i] for i in picked] if self.config.orpo else []
        return [*(self.rows[i] for i in picked), *rejected]

    def _batch(self, rows: Sequence[Rendered]) -> Batch:
        return self.objective.batch(rows, self.pad_id)

    def _answers(self, micro: Sequence[int], batch: Batch, divisor: float, scale: float) -> Part:
        config = self.config
        # scaled here and not after the loss, where half precision would round the factor and lose small slopes
        weights_N = batch.weights_N * (scale / divisor)
        share = config.distill.mix if config.distill else 0.0
        told = self.extras.teacher.side(self._of(micro)) if self.extras.teacher else None
        side = self.objective.side(batch, config.neftune)
        loss, nll_N = chunked_nll(
            side.hidden_ND, side.head, batch.targets_N, weights_N * (1 - share), side.finish,
            Shaping(config.label_smoothing, config.dft),
        )  # fmt: skip
        columns = {"loss": (nll_N * weights_N).sum() / scale}
        if told and config.distill:
            temperature, direction = config.distill.temperature, config.distill.direction
            factors_N = weights_N * (share * temperature**2)
            divergence, each_N = chunked_divergence(told, side, factors_N, temperature=temperature, direction=direction)
            loss = loss + divergence
            columns["distill_kl"] = (each_N * weights_N).sum() / scale
        return loss, {"objective": loss.detach() / scale, **columns}

    def _pairs(self, micro: Sequence[int], batch: Batch, divisor: float, pairs: float, scale: float) -> Part:
        """ORPO. A pair's term is no sum over tokens, but the step's is a sum over pairs: they stay together."""
        count = len(micro)
        side = self.objective.side(batch, self.config.neftune)
        nll_N = token_nll(side.hidden_ND, side.head, batch.targets_N, side.finish)
        loss = (nll_N * batch.weights_N)[batch.rows_N < count].sum() / divisor
        chosen_P, rejected_P = mean_log_p(nll_N, batch.weights_N, batch.rows_N, batch.rows).split(count)
        weights_P = nll_N.new_tensor([weight_of(self.rows[i]) for i in micro]) / pairs
        odds = (odds_ratio_loss(chosen_P, rejected_P) * weights_P).sum()
        whole = loss + self.config.orpo * odds
        return whole * scale, {
            "objective": whole.detach(),
            "loss": loss.detach(),
            "orpo_loss": odds.detach(),
            "preference_accuracy": ((chosen_P > rejected_P) * weights_P).sum(),
        }

    def _kept(self, step: int, rank: int, world: int, scale: float) -> Iterator[Part]:
        keep, prompts, base = self.config.keep, self.extras.prompts, self.extras.base
        assert keep is not None and base is not None
        count = min(keep.rows, len(prompts))
        picked = draw(len(prompts), count, step, self.seed, KEPT).tolist()
        divisor = sum(len(prompts[i]) for i in picked)
        costs = self.objective.costs(prompts)
        mine = share_of_rank(costs, picked, rank, world)
        for micro in micro_batches(costs, mine, self.token_budget, packed=self.objective.packed):
            rows = [prompts[i] for i in micro]
            batch = everywhere(self._batch(rows))
            weights_N = batch.weights_N * (scale * keep.weight / divisor)
            told = base.side(rows, all_positions=True)
            loss, each_N = chunked_divergence(told, self.objective.side(batch), weights_N)
            yield loss, {"objective": loss.detach() / scale, "keep_kl": each_N.sum() / divisor}
