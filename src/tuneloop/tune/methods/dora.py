"""DoRA: LoRA of the weights' direction, and a trained length of each row (Liu et al. 2024, arXiv 2402.09353), by peft."""

from __future__ import annotations

from typing import ClassVar

from tuneloop.tune.lowrank import LowRank


class Dora(LowRank):
    """m · (W + scale·B·A) / ‖W + scale·B·A‖ by rows, with A, B and m trained; the result is an adapter in peft's format."""

    use_dora: ClassVar[bool] = True
