"""Optimizers, one file each: how parameter groups become torch optimizers. Masters and clipping are in optimizer.py."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tuneloop.core.plugins import Family, Plugin

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class OptimizerChoice(Plugin):
    """Builds torch optimizers over named float32 parameters."""

    state_bytes: ClassVar[float] = 8
    """Memory of the state of one trained parameter, for the estimate; two fp32 moments by default."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay on matrices (and chosen entries of them); norms, biases, factors are never decayed."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of a layer as a share of that of the one above (Howard & Ruder 2018, arXiv 1801.06146)."""
    clip: float = Field(default=1.0, ge=0)
    """Largest norm of the whole gradient; a longer one is scaled down. 0: no clipping."""

    @abstractmethod
    def build(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[Optimizer]:
        """Optimizers that together cover every parameter once; each group's `lr` is its peak rate, from `rates`.

        `matrices`: names of the parameters that are matrices, or vectors of chosen entries of one.
        """

    def groups(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[dict[str, Any]]:
        """Parameter groups by peak rate and by whether weight decay applies, in the parameters' order."""
        found: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in named.items():
            found.setdefault((rates[name], name in matrices), []).append(parameter)
        return [
            {"params": params, "lr": rate, "weight_decay": self.weight_decay if decayed else 0.0}
            for (rate, decayed), params in found.items()
        ]


FAMILY: Family[OptimizerChoice] = Family("optimizers", __name__, OptimizerChoice)
OptimizerField = Annotated[OptimizerChoice, FAMILY]
