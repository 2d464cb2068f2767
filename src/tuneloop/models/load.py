"""Loads a base's weights, from local folders and safetensors only.

`find_base` finds what a recipe names; `load_tokenizer` (tokenizer.py) and `load_model` read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tuneloop.core import machine
from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import did_you_mean
from tuneloop.models.checks import check_architecture
from tuneloop.models.find import Base
from tuneloop.models.quantize import Quantization, config_for, settle
from tuneloop.models.quiet import quiet
from tuneloop.models.tokenizer import load_tokenizer

CANNOT_BUILD = (StrictDataclassError, ValueError, TypeError, KeyError, RuntimeError)


def load_model(
    base: Base,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    attn_implementation: str | None = None,
    device: str = "cpu",
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """The base's weights in `dtype` (without its adapter), in evaluation mode; a new architecture is seeded by `seed`.

    With `quantization` the linear layers but the head are held in fewer bits, frozen. Raises ModelError when weights
    are missing, have other shapes or do not fit the tokenizer.
    """
    if base.config.architecture is not None:
        if quantization is not None:
            raise ModelError(f"a new model has no trained weights to hold in {quantization}: tune with full or lora")
        model: Any = _new_model(base, seed, attn_implementation)
        return model.to(device=device, dtype=dtype).eval()
    return model_from(
        base.path, dtype, attn_implementation=attn_implementation, device=device, quantization=quantization
    )


def model_from(
    folder: Path,
    dtype: torch.dtype,
    *,
    attn_implementation: str | None = None,
    device: str = "cpu",
    quantization: Quantization | None = None,
) -> PreTrainedModel:
    """The model of a checked standard folder, in evaluation mode. Weights are read from safetensors only."""
    smaller = {"quantization_config": config_for(quantization, dtype)} if quantization else {}
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation=attn_implementation, device_map={"": device},
                local_files_only=True, use_safetensors=True, output_loading_info=True, **smaller,
            )  # fmt: skip
    except (StrictDataclassError, SafetensorError, OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"{folder}: the model cannot be loaded: {error}") from error
    model, report = loaded
    wrong = sorted(map(str, (*report["missing_keys"], *report.get("mismatched_keys", ()))))
    if wrong:  # transformers fills them with random numbers and goes on
        raise ModelError(
            f"{folder}: {len(wrong)} weights are missing or of another shape than config.json says: "
            f"{', '.join(wrong[:3])}"
        )
    if quantization and not settle(model):
        raise ModelError(
            f"no layer of {type(model).__name__} can be held in {quantization}: transformers replaces plain "
            "linear layers only, and this architecture has a kind of its own. Take method lora instead of qlora"
        )
    machine.libraries_are_here()
    return model.eval()


def config_of(base: Base) -> PreTrainedConfig:
    """The transformers config of a base, of a new architecture too. Raises ModelError for values it does not know."""
    if base.config.architecture is None:
        return AutoConfig.from_pretrained(base.path, local_files_only=True)
    tokenizer = load_tokenizer(base)
    values = dict(base.config.architecture)
    model_type = values.pop("model_type")
    check_architecture(model_type, None, "model.architecture")
    default = CONFIG_MAPPING[model_type]()
    for key in values:  # a config takes any key as an attribute: a typo would be ignored in silence
        if not hasattr(default, key):
            hint = did_you_mean(key, (name for name in default.to_dict() if not name.startswith("_")))
            raise ModelError(f"model.architecture: {model_type} has no value '{key}'{hint}")
    needed = len(tokenizer)
    if values.setdefault("vocab_size", needed) < needed:
        raise ModelError(
            f"model.architecture.vocab_size: {values['vocab_size']} is less than the tokenizer's {needed} tokens"
        )
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.pad_token_id  # the defaults name ids of the architecture's usual vocabulary
    try:
        return AutoConfig.for_model(model_type, **{**ids, **values})
    except CANNOT_BUILD as error:
        raise _cannot_build(model_type, error) from error


def _new_model(base: Base, seed: int, attn_implementation: str | None) -> PreTrainedModel:
    """Random weights, drawn in fp32 so that a seed names the same model in every dtype."""
    config = config_of(base)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation=attn_implementation
            )
    except CANNOT_BUILD as error:
        raise _cannot_build(config.model_type, error) from error
    finally:
        machine.libraries_are_here()


def _cannot_build(model_type: str, error: Exception) -> ModelError:
    return ModelError(f"model.architecture: {model_type} cannot be built from these values: {error}")
