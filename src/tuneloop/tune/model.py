"""The loaded base as the model to train: the method applied, routers frozen where the recipe says so."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from tuneloop.tune.config import TuneConfig


def applied(config: TuneConfig, model: PreTrainedModel) -> Any:
    """The model with the method's parameters to train; works on the meta device too."""
    trained = config.method.apply(model)
    config.moe.freeze(trained)
    return trained
