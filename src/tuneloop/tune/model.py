"""The loaded base as the model to train: the method applied to it, or an adapter of it continued; routers as asked."""

from __future__ import annotations

import json
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tuneloop.core.errors import ModelError
from tuneloop.models import adapters
from tuneloop.models.find import Base
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.methods import FAMILY as METHODS


def applied(config: TuneConfig, model: PreTrainedModel) -> Any:
    """The model with the method's parameters to train; works on the meta device too."""
    trained = config.method.apply(model)
    config.moe.freeze(trained)
    return trained


def continued(config: TuneConfig, model: PreTrainedModel, base: Base) -> Any:
    """The base's adapter, to be trained further: its own shape counts, so other options would be ignored in silence."""
    assert base.adapter is not None
    if not config.method.adapter:
        raise ModelError(
            f"model.adapter: '{METHODS.name_of(config.method)}' trains whole models. Merge the adapter first "
            f"(tuneloop merge {base.adapter}) and take the merged folder as model.base, or tune with method lora."
        )
    stored = adapters.check_folder(base.adapter)
    with torch.device("meta"):
        fresh = config.method.apply(AutoModelForCausalLM.from_config(model.config))
    wanted = json.loads(json.dumps(fresh.peft_config["default"].to_dict(), default=list))
    name = METHODS.name_of(config.method)
    for option, key in {"peft_type": "peft_type", **config.method.continued}.items():
        if wanted[key] != stored.get(key, wanted[key]):
            raise ModelError(
                f"tune.method.{name}.{option} is {wanted[key]}, but the adapter {base.adapter} that training starts "
                f"from has {stored[key]}: write that value, or leave model.adapter out to start anew"
            )
    here, there = adapters.shapes_of(fresh), adapters.shapes(base.adapter)
    odd = sorted(tensor for tensor in here.keys() | there.keys() if here.get(tensor) != there.get(tensor))
    if odd:
        raise ModelError(
            f"tune.method.{name}: {base.adapter} trains other parameters than these options would, in all {len(odd)}, "
            f"e.g. {odd[0]} of shape {there.get(odd[0], 'none')} there and {here.get(odd[0], 'none')} here. Write the "
            f"options that it was made with; its layers are {stored.get('target_modules')}"
        )
    return adapters.attach(model, base.adapter, base, trainable=True)
