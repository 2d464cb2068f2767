"""AdamW with moments of 8 bits (Dettmers et al. 2021, block-wise quantisation, arXiv 2110.02861), by bitsandbytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

from tuneloop.core.errors import MissingExtra
from tuneloop.tune.optimizers.adamw import Adam

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class AdamW8bit(Adam):
    """AdamW in a quarter of the memory for its state; tensors below 4,096 values keep fp32 state."""

    state_bytes: ClassVar[float] = 2.03  # a byte a moment, and one fp32 scale a block of 256 values

    def build(
        self, named: Mapping[str, nn.Parameter], rates: Mapping[str, float], matrices: Collection[str]
    ) -> list[Optimizer]:
        try:
            from bitsandbytes.optim import AdamW8bit as Blockwise  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingExtra("bitsandbytes", "tune.optimizer adamw_8bit", "bitsandbytes") from error
        return [Blockwise(self.groups(named, rates, matrices), betas=(self.beta1, self.beta2), eps=self.epsilon)]
