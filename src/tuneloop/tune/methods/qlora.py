"""QLoRA: LoRA on a frozen base in 4 or 8 bits (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes and peft."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from tuneloop.tune.lowrank import LowRank


class Qlora(LowRank):
    """LoRA beside a base that is held in 4 bits (NF4, double quantisation) or 8; needs bitsandbytes (an extra)."""

    bits: Literal[4, 8] = 4
    """Bits of a weight of the base: 4 is NF4 with quantised scales, 8 whole numbers with a scale a row."""

    @property
    def quantization(self) -> Literal["nf4", "int8"]:
        return "nf4" if self.bits == 4 else "int8"

    @model_validator(mode="after")
    def _base_stays(self) -> Self:
        if self._starts_from_base:
            raise ValueError(
                f"init: {self.init} changes the base's weights, which are rounded here: kaiming, gaussian or orthogonal"
            )
        return self
