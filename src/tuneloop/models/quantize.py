"""A frozen base in 4 or 8 bits (bitsandbytes): how it is loaded, and kept exact in training and evaluation alike.

Head and embeddings stay as they are. Knows nothing of adapters' kinds.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError

Quantization = Literal["nf4", "int8"]
BITS: dict[str, float] = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8.0}
"""Bits a weight with its scales: NF4 has a scale of 8 bits for 64 weights and one of 32 bits for 256 of these (QLoRA,
arXiv 2305.14314, section 3); in int8 the scale of a row hardly counts."""


def available() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def config_for(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers needs to load a base that way, computing in `dtype`. Raises ModelError without bitsandbytes."""
    if not available():
        raise ModelError(
            f"a base in {quantization} needs bitsandbytes, which is not installed: pip install 'tuneloop[bitsandbytes]'"
        )
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def settle(model: PreTrainedModel) -> int:
    """Makes quantised layers compute the same function in training and evaluation, and differentiable at any time.

    Returns how many there are.

    bitsandbytes 0.50, on CPUs with AVX512-BF16: the first pass in evaluation mode packs 4-bit weights for a bf16 kernel
    without a gradient, which all later training then uses (the gradient shrank to 1/400 without a word). In 8 bits,
    evaluation also rounds the activations, training does not.
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    from tuneloop.models.int8 import Int8Linear

    found = [module for module in model.modules() if isinstance(module, Linear4bit | Linear8bitLt)]
    for module in found:
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        else:
            module.__class__ = Int8Linear
    return len(found)


def linear_parameters(model: nn.Module, head: nn.Module | None) -> int:
    """How many weights of a model would be held in fewer bits: matrices of linear layers, but not the head."""
    return sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    )
