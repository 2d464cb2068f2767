"""What is measured on validation rows while training runs: their loss, and the metrics of the recipe on some of them.

Knows no metrics: the flow, which does, gives a Scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.forward import objective as forward
from tuneloop.forward.objective import Objective
from tuneloop.render.template import Renderer
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.pairs import preferences
from tuneloop.tune.rows import Rows


@dataclass(frozen=True)
class Measured:
    """A model as it is: name → (value, whether lower is better or None where neither is), and its answers as lines."""

    values: Mapping[str, tuple[float, bool | None]]
    answers: Sequence[Mapping[str, Any]] = ()


Validate = Callable[[], Measured]
Nll = Callable[[Sequence[Any]], list[tuple[float, float]]]
"""(summed nll in nats, summed weight) of each rendered row by the model in training."""
Scorer = Callable[[nn.Module, Renderer, Nll, Sequence[Example]], tuple[dict[str, tuple[float, bool | None]], list[Any]]]
"""Asks the model and scores it: as Measured's values, and of each example a line with its answer."""
PURPOSE = "validate"
"""Of the choice of validation rows. The rows to answer are among those whose loss is measured."""


def validation(
    config: TuneConfig,
    objective: Objective,
    renderer: Renderer,
    val_set: Rows,
    val_rows: Sequence[Example],
    scorer: Scorer | None,
    budget: int,
) -> Validate | None:
    """The measurement of a job; None without validation rows. Raises DataError when early stopping needs some."""
    if not val_set.rendered:
        if config.early_stopping:
            raise DataError("early_stopping needs validation rows: give data.val or a share in data.split.val")
        return None
    sample = choose(val_rows, config.asked_rows, PURPOSE)
    device = next(objective.parameters()).device

    def nll(rows: Sequence[Any]) -> list[tuple[float, float]]:
        return forward.nll(objective, rows, pad_id=renderer.pad_id, budget=budget)

    def validate() -> Measured:
        # dropout of the next step must not depend on what is measured: sampled answers draw random numbers
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            loss = forward.mean_nll(objective, val_set.rendered, pad_id=renderer.pad_id, budget=budget)
            values, answers = {"loss": (loss, True)}, []
            if val_set.rejected:
                values |= preferences(
                    objective, val_set.rendered, val_set.rejected, pad_id=renderer.pad_id, budget=budget
                )
            if scorer and sample:
                scored, answers = scorer(objective.model, renderer, nll, sample)
                values |= scored
        return Measured(values, answers)

    return validate
