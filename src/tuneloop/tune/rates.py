"""Learning rates of single parameters: by the method (LoRA+) and by depth (layer-wise decay)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")
INPUT = ("embed", "wte", "wpe")


def factors(names: Iterable[str], layer_decay: float, own: Mapping[str, float]) -> dict[str, float]:
    """Factor on the learning rate of each parameter: the method's `own` times layer_decay^(layers above it).

    What stands behind the last layer (final norm, head) has the full rate, the embeddings stand below layer 0.
    """
    depths = {name: _depth(name) for name in names}
    numbers = [depth for depth in depths.values() if depth is not None]
    top = max(numbers, default=0)
    return {
        name: own.get(name, 1.0) * (layer_decay ** (top - depth) if depth is not None else 1.0)
        for name, depth in depths.items()
    }


def _depth(name: str) -> int | None:
    found = LAYER.search(name)
    if found:
        return int(found[1])
    return -1 if any(part in name for part in INPUT) and "embed_out" not in name else None  # GPT-NeoX's head
