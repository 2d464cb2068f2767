"""BitFit: only biases are trained (Ben Zaken et al. 2021, arXiv 2106.10199)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from transformers import PreTrainedModel


class Bitfit(Method):
    """Biases are trained, and the weights of normalisations where asked or needed; the result is a whole model."""

    adapter: ClassVar[bool] = False

    norms: Literal["auto"] | bool = "auto"
    """Train the scales of the normalisations too. auto: where the model has no biases, as Llama and most since."""

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        from tuneloop.core.errors import ModelError

        model.requires_grad_(False)
        biases = [p for name, p in model.named_parameters() if _is_bias(name)]
        norms = list(_norms(model)) if self.norms is True or (self.norms == "auto" and not biases) else []
        if not biases and not norms:
            raise ModelError("tune.method.bitfit: this model has no biases; set norms: true to train its norms' scales")
        for parameter in (*biases, *norms):
            parameter.requires_grad_(True)
        return model

    def words(self, model: PreTrainedModel) -> str:
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        biases = sum(map(_is_bias, trained))
        why = "" if biases or self.norms is True else " (this architecture has no biases)"
        return f"trained: {biases} biases, {len(trained) - biases} scales of normalisations{why}"


def _is_bias(name: str) -> bool:
    """dt_bias, the time constants of state-space and linear-attention layers, is a bias by name only."""
    return name.endswith("bias") and not name.endswith("dt_bias")


def _norms(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if "norm" in type(module).__name__.lower() and weight is not None and weight.ndim == 1:
            yield weight
