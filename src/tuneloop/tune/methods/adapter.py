"""Bottleneck adapters after attention and MLP (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Adapter(Method):
    """x + scaling · up(f(down(x))) after sublayers of the frozen base; the adapter stays beside it."""

    adapter: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    continued: ClassVar[Mapping[str, str]] = {
        "nonlinearity": "nonlinearity", "scaling": "scaling", "dropout": "dropout"
    }  # fmt: skip

    places: list[Literal["attention", "mlp"]] = Field(["attention", "mlp"], min_length=1)
    """After which sublayers: both as Houlsby et al., only mlp as Pfeiffer et al. (arXiv 2005.00247)."""
    reduction: float = Field(16, ge=1)
    """Hidden size divided by the adapter's inner width."""
    nonlinearity: Literal["relu", "gelu", "silu", "tanh", "leaky_relu"] = "relu"
    """What stands between down and up projection."""
    scaling: float = Field(1.0, gt=0)
    """Factor on the adapter's output."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the inner activations."""

    def apply(self, model: PreTrainedModel) -> Any:
        from peft import TaskType, get_peft_model

        from tuneloop.models import bottleneck

        width = model.config.get_text_config().hidden_size
        config = bottleneck.BottleneckConfig(
            task_type=TaskType.CAUSAL_LM,
            target_modules=bottleneck.places(model, list(dict.fromkeys(self.places))),
            hidden_size=width,
            bottleneck=max(1, round(width / self.reduction)),
            nonlinearity=self.nonlinearity,
            scaling=self.scaling,
            dropout=self.dropout,
        )
        # the adapter keeps the model's dtype: tune/optimizer.py holds float32 masters of whatever is trained
        return get_peft_model(model, config, autocast_adapter_dtype=False)
