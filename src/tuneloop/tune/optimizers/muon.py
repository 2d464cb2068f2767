"""Muon for hidden matrices (Jordan et al. 2024; scale of Liu et al. 2025, arXiv 2502.16982), AdamW for the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from tuneloop.tune.optimizers import OptimizerChoice
from tuneloop.tune.optimizers.adamw import AdamW

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class Muon(OptimizerChoice):
    """Orthogonalised momentum on the matrices inside the blocks; embeddings, head and vectors go to AdamW."""

    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay of the momentum that is orthogonalised."""

    def build(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[Optimizer]:
        import torch

        hidden = {name: p for name, p in named.items() if p.ndim == 2 and name in matrices and not _outer(name)}
        rest = {name: p for name, p in named.items() if name not in hidden}
        built: list[Optimizer] = []
        if hidden:
            built.append(
                torch.optim.Muon(
                    self.groups(hidden, rates, matrices),
                    momentum=self.momentum,
                    adjust_lr_fn="match_rms_adamw",  # one learning rate fits both kinds of parameters
                )
            )
        if rest:
            built += AdamW(weight_decay=self.weight_decay, beta2=0.95).build(rest, rates, matrices)
        return built


def _outer(name: str) -> bool:
    return any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
