"""The tuning methods as the tests run them on tiny models: options, learning rates, what cannot be had."""

from __future__ import annotations

from typing import Any

from tuneloop.tune.methods import FAMILY

LOW_RANK: dict[str, Any] = {"rank": 4, "alpha": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": LOW_RANK, "dora": LOW_RANK, "qlora": LOW_RANK, "freeze": {"layers": 1}, "adapter": {"reduction": 4},
    "prompt": {"tokens": 64}, "prefix": {"tokens": 16}, "sparse": {"fraction": 0.2},
}  # fmt: skip
"""Options of methods whose defaults are too large, or too small, for models of two layers."""
RATES = {
    "ia3": 0.2, "prompt": 0.1, "prefix": 0.3, "bitfit": 0.1, "sparse": 0.03,
    "lora, outer": 3e-3, "lora, whole head": 3e-3, "prefix, projected": 0.03,
}  # fmt: skip
"""Learning rates, by method or choice, where 1e-2 teaches so few parameters nothing in so few steps, or is too much."""
LONGER = {"prompt": 3}
"""How many times the steps a method needs: what a prompt says fades in random recurrent layers and short windows."""
VARIANTS: dict[str, Any] = {"lora + experts": {"lora": {"rank": 4, "alpha": 8, "experts": True}}}
"""Methods with options that only models with stacked experts have."""
TEXT = "Add the two numbers. 加"
SPECIAL: dict[str, Any] = {
    "lora, dropout": {"lora": {**LOW_RANK, "dropout": 0.1, "plus_ratio": 4}},
    "lora, patterns": {
        "lora": {
            **LOW_RANK, "rslora": True, "rank_pattern": {"c_fc": 2}, "alpha_pattern": {"c_fc": 3}, "layers": [-1]
        }
    },
    "lora, outer": {"lora": {**LOW_RANK, "targets": ["auto", "embeddings", "head"]}},
    "lora, whole head": {"lora": {**LOW_RANK, "modules_to_save": ["head"]}},
    "lora, gaussian": {"lora": {**LOW_RANK, "init": "gaussian"}},
    "lora, orthogonal": {"lora": {**LOW_RANK, "init": "orthogonal"}},
    "lora, pissa": {"lora": {**LOW_RANK, "init": "pissa"}},
    "lora, pissa_niter_4": {"lora": {**LOW_RANK, "init": "pissa_niter_4", "rslora": True}},
    "lora, olora": {"lora": {**LOW_RANK, "init": "olora"}},
    "dora, pissa": {"dora": {**LOW_RANK, "init": "pissa", "dropout": 0.1}},
    "qlora, 8 bits": {"qlora": {**LOW_RANK, "bits": 8}},
    "adapter, dropout": {"adapter": {"reduction": 4, "dropout": 0.1}},
    "prompt, text": {"prompt": {"text": TEXT}},
    "prefix, text": {"prefix": {"text": TEXT}},
    "prefix, projected": {"prefix": {"tokens": 6, "projection": True, "projection_size": 16}},
}  # fmt: skip
"""Options that change what is trained or saved, for GPT-2 (transposed matrices, a tied head, dropout in its config)."""
METHODS: dict[str, Any] = {**{name: {name: OPTIONS.get(name, {})} for name in FAMILY.names()}, **VARIANTS}
"""The table's columns: a new plug-in is among them by itself."""
CHOICES: dict[str, Any] = {**METHODS, **SPECIAL}


def rate_of(key: str) -> float:
    """The learning rate of one of CHOICES."""
    return RATES.get(key) or RATES.get(key.partition(",")[0], 1e-2)


HYBRID = ("mamba2", "falcon_h1", "jamba", "qwen3_next")
REFUSED: dict[tuple[str, str], str] = {
    # a shared prefix of keys and values has no place in a recurrent state, nor one size in DeepSeek's latent cache
    **{("qlora", name): "no layer of .* can be held in" for name in ("falcon", "falcon_alibi")},
    **{("prefix", name): "needs layers of attention alone.*use method prompt" for name in HYBRID},
    **{
        ("prefix", name): "has 1 heads of size 16 in its cache.*use method prompt"
        for name in ("deepseek_v2", "deepseek_v3")
    },
    # peft renames these layers to those of stacked experts, and adapts parameters without DoRA
    **{
        ("dora", name): r"feed-forwards of .*use plain lora without it, or .*targets: \["
        for name in ("deepseek_v2", "deepseek_v3", "glm4_moe", "qwen3_next")
    },
    # Mamba's block is neither attention nor a feed-forward, and makes no keys and values
    ("adapter", "mamba2"): "no attention was found.*choose another",
    ("ia3", "mamba2"): "which layer .* ends a feed-forward is not known",
}
"""Pairs that cannot be had, and what tuneloop must say about each: a refusal with what to do instead."""
UNCACHED = {("prompt", "mamba2")}
"""Pairs whose virtual tokens peft's `generate` loses from the second token on: Mamba's cache is not under the name it
knows. There the reference is `generate` without a cache."""
