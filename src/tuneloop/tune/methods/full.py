"""Full tuning: every parameter is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Full(Method):
    """All weights are trained; the result is a whole model."""

    adapter: ClassVar[bool] = False

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        return model.requires_grad_(True)
