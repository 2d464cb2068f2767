"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

from tuneloop.tune.lowrank import LowRank


class Lora(LowRank):
    """W + (alpha / rank) · B·A with A, B trained and W frozen; the result is an adapter in peft's format."""
