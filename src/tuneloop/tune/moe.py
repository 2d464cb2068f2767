"""Mixture-of-experts models in training: the branch `tune.moe`, the router loss of a step, what is logged of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import Branch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tuneloop.forward.batch import Batch
    from tuneloop.forward.objective import Objective


class Moe(Branch):
    """What holds for the routers of a mixture-of-experts model."""

    router_loss: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """Weight of the load-balancing loss; auto: the architecture's own (router_aux_loss_coef), 0 turns it off."""
    freeze_routers: bool = False
    """Leave the routers as they are where whole weights are trained; adapters never touch them."""

    def freeze(self, model: nn.Module) -> None:
        """Takes the routers out of training, where asked."""
        from tuneloop.models.targets import routers

        if self.freeze_routers:
            found = routers(model)
            if not found:
                raise ModelError("tune.moe.freeze_routers: this model has no router; leave the option out")
            for router in found.values():
                router.module.requires_grad_(False)


class Balance:
    """The router loss over an optimizer step. Made once a run by `balance_of`."""

    def __init__(self, model: nn.Module, weight: float) -> None:
        from tuneloop.forward.routing import Routing

        self.routing = Routing(model)
        self.weight = weight
        self.tokens = 0

    def begin(self, objective: Objective, batches: Sequence[Batch], tokens: int, world: int) -> None:
        """Before this process's first batch of a step, which has `tokens` tokens over all `world` processes."""
        self.tokens = tokens
        self.routing.begin()
        if self.weight and (len(batches) > 1 or world > 1):
            was_training = objective.training
            objective.eval()  # dropout would be drawn twice, and other than in the pass that counts
            ahead_LE = self.routing.look_ahead(objective, batches)
            objective.train(was_training)
            self.routing.ahead_LE = _over_ranks(ahead_LE, world)

    def watching(self, batch: Batch) -> AbstractContextManager[None]:
        """Around the forward pass of a batch."""
        return self.routing.watching(batch)

    def loss(self) -> Tensor | float:
        """To be added to the step's mean loss for the batch just watched."""
        return self.weight * self.routing.loss(self.tokens) if self.weight else 0.0

    def logged(self, world: int) -> dict[str, float]:
        """After a step's last batch: the unweighted loss, the largest and the smallest load of any expert (1: even)."""
        from tuneloop.forward import routing

        choices_LE = _over_ranks(self.routing.choices_LE, world)
        chances_LE = _over_ranks(self.routing.chances_LE, world)
        load_LE = routing.load(choices_LE)
        return {
            "router_loss": routing.balance(choices_LE, chances_LE, self.tokens),
            "expert_load_max": round(float(load_LE.max()), 4),
            "expert_load_min": round(float(load_LE.min()), 4),
        }


def balance_of(moe: Moe, model: nn.Module, config: Any) -> Balance | None:
    """The Balance of a model with routers, None for others. Raises ModelError where a weight is given for nothing."""
    from tuneloop.forward.routing import coefficient
    from tuneloop.models.targets import routers

    if not routers(model):
        if moe.router_loss != "auto":
            raise ModelError(f"tune.moe.router_loss is {moe.router_loss}, but this model has no router; leave it out")
        return None
    return Balance(model, coefficient(config) if moe.router_loss == "auto" else moe.router_loss)


def in_words(moe: Moe, balance: Balance) -> str:
    """What was decided about the router loss, for the console."""
    count = len(balance.routing.names)
    if balance.weight:
        source = "the architecture's own weight" if moe.router_loss == "auto" else "tune.moe.router_loss"
        return f"{count} routers; their load-balancing loss counts {balance.weight:g} ({source})"
    why = "the architecture states no weight" if moe.router_loss == "auto" else "tune.moe.router_loss"
    return f"{count} routers without load-balancing loss ({why}); the load is logged"


def _over_ranks(values: Tensor, world: int) -> Tensor:
    if world > 1:
        import torch

        values = values.clone()
        torch.distributed.all_reduce(values)
    return values
