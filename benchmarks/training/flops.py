"""How many floating-point operations a step needs at least: matrix products of the layers, of the head where scored.

Kaplan et al. 2020 (arXiv 2001.08361, section 2.1): 2 a weight and token forward, 2 for the gradient of the input, 2 for
that of the weight. Attention's quadratic part, LoRA's own small products and padding are not counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def needed(model: str, method: dict[str, Any], tokens: int, scored: int) -> float:
    """Operations for so many tokens, of which `scored` are learnt, of a dense model with gated MLPs."""
    config = json.loads((Path(model) / "config.json").read_text("utf-8"))
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    kept = config.get("num_key_value_heads") or heads
    layer = hidden * size * (2 * heads + 2 * kept) + 3 * hidden * config["intermediate_size"]
    head = hidden * config["vocab_size"]
    if "freeze" in method:  # nothing below the lowest trained layer needs a gradient
        learnt = method["freeze"]["layers"]
        return tokens * layer * (2 * layers + 4 * learnt) + scored * head * 4
    each = 6 if "full" in method else 4
    return each * (tokens * layers * layer + scored * head)
