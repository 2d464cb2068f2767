"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tuneloop.core.errors import ModelError
from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lora(Method):
    """W + (alpha / rank) · B·A with A, B trained and W frozen; the result is an adapter in peft's format."""

    adapter: ClassVar[bool] = True

    rank: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the update's input."""
    targets: str | list[str] = "auto"
    """Names (endings) of the layers to adapt; auto: every linear layer except output head and routers."""
    experts: bool = False
    """Adapt the stacked experts of a mixture-of-experts model too, each with an update of its own of this rank."""

    def apply(self, model: PreTrainedModel) -> Any:
        from peft import LoraConfig, TaskType, get_peft_model

        from tuneloop.models import targets

        if self.targets == "auto":
            chosen: dict[str, Any] = targets.for_peft(model, targets.linear_targets(model), experts=self.experts)
        else:
            chosen = targets.for_peft(model, (), experts=self.experts) | {"target_modules": self.targets}
        if self.dropout and chosen.get("target_parameters"):
            raise ModelError(
                f"tune.method.lora.dropout: {type(model).__name__} has feed-forwards that peft can only adapt as whole "
                "parameters, without dropout: set it to 0"
            )
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft says int and computes with floats
            lora_dropout=self.dropout,
            **chosen,
        )
        # the adapter keeps the model's dtype: tune/optimizer.py holds float32 masters of whatever is trained
        return get_peft_model(model, config, autocast_adapter_dtype=False)
