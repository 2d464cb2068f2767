"""DoRA: LoRA of the rows' direction, and their lengths trained apart (Liu et al. 2024, arXiv 2402.09353), by peft."""

from __future__ import annotations

from typing import ClassVar

from tuneloop.tune.lowrank import LowRank


class Dora(LowRank):
    """m · V / ‖V‖ by rows, for V = W + scale · B·A, with A, B and m trained; the result is an adapter of peft."""

    use_dora: ClassVar[bool] = True
