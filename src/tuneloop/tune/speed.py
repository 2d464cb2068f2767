"""How fast a step was, in the units that people compare, and how much memory the process has held."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

from tuneloop.models.fit import GIB


@dataclass(frozen=True)
class Speedometer:
    """Turns a step's seconds into rates. Without `machine_rate` (measured operations a second) there is no MFU."""

    flops_per_token: int = 0
    machine_rate: float = 0.0
    device: str = "cpu"

    def read(self, seconds: float, tokens: int, supervised: int, computed: int) -> dict[str, float]:
        """The columns of metrics.jsonl that differ from run to run; `computed` tokens went through the layers.

        MFU (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) is the work that the model needs, without attention's
        quadratic part and without what is recomputed, over what this machine's matrix products reach; a GPU's data
        sheet may say more than it reaches.
        """
        seconds = max(seconds, 1e-9)
        found = {
            "tokens_per_second": round(tokens / seconds, 1),
            "supervised_tokens_per_second": round(supervised / seconds, 1),
            "memory_gib": round(self._memory() / GIB, 3),
        }
        if self.machine_rate:
            found["mfu"] = round(computed * self.flops_per_token / seconds / self.machine_rate, 4)
        return found

    def _memory(self) -> int:
        """The most bytes held so far: of the device by tensors, or of the process."""
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
