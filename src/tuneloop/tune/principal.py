"""LoRA that starts from parts of the base's own weights: W = rest + s·B·A, the rest frozen, A and B trained.

PiSSA (Meng et al. 2024, arXiv 2404.02948) takes the largest singular values, OLoRA (Büyükakyüz 2024, arXiv 2406.01775)
the first rows of a QR decomposition. Trained on a changed base, the result is rewritten to fit the original one.
Shapes: O outputs, I inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn

from tuneloop.core.errors import ModelError

START_A, START_B = "start_A", "start_B"


def start(model: PeftModel, init: str) -> None:
    """Moves the part of each adapted matrix that `init` names from the base into the adapter.

    Our own and not peft's: the factors are rounded to the model's dtype before the rest is computed, so that rest and
    factors add up to W as exactly as that dtype allows; and peft's OLoRA does not know GPT-2's transposed matrices.
    """
    for layer in _layers(model):
        weight_OI = _weight(layer)
        if weight_OI.is_meta:  # only counted
            continue
        factor_A, factor_B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        scale = layer.scaling["default"]
        b_OR, a_RI = _factors(weight_OI.float(), factor_A.shape[0], init, scale)
        factor_A.data, factor_B.data = a_RI.to(factor_A.dtype).contiguous(), b_OR.to(factor_B.dtype).contiguous()
        layer.register_buffer(START_A, factor_A.detach().clone(), persistent=False)
        layer.register_buffer(START_B, factor_B.detach().clone(), persistent=False)
        _add(layer, -scale)


def finish(model: PeftModel) -> None:
    """Rewrites the adapter for the original base: W + s·(B·A - B₀·A₀), which is an ordinary LoRA of twice the rank.

    After arXiv 2404.02948, appendix C: [B, -B₀]·[A; A₀]. What the model computes stays the same up to rounding.
    """
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    more = 2**0.5 if config.use_rslora else 2.0  # keeps the scale, which is alpha / √rank or alpha / rank
    for layer in _layers(model):
        _add(layer, layer.scaling["default"])
        factor_A, factor_B = layer.lora_A["default"], layer.lora_B["default"]
        factor_A.weight = nn.Parameter(torch.cat([factor_A.weight.data, layer.get_buffer(START_A)], dim=0))
        factor_B.weight = nn.Parameter(torch.cat([factor_B.weight.data, -layer.get_buffer(START_B)], dim=1))
        layer.r["default"] *= 2
        layer.lora_alpha["default"] *= more
    config.r *= 2
    config.lora_alpha *= more  # type: ignore[assignment]  # peft says int and computes with floats
    config.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    config.alpha_pattern = {name: more * alpha for name, alpha in (config.alpha_pattern or {}).items()}  # type: ignore[misc]


def _layers(model: PeftModel) -> Iterator[Any]:
    # Any: what peft's containers hold is typed as any module
    return (module for module in model.modules() if isinstance(module, Linear))


def _weight(layer: Any) -> Tensor:
    """The adapted matrix [O, I]."""
    weight = layer.get_base_layer().weight.data
    return weight.T if layer.fan_in_fan_out else weight


def _add(layer: Any, scale: float) -> None:
    """Adds scale·B₀·A₀ to the base's matrix, in a parameter of its own: a head's may be tied to the embeddings."""
    weight_OI = _weight(layer)
    delta_OI = layer.get_buffer(START_B).float() @ layer.get_buffer(START_A).float()
    new_OI = (weight_OI.float() + scale * delta_OI).to(weight_OI.dtype)
    new = new_OI.T.contiguous() if layer.fan_in_fan_out else new_OI
    layer.get_base_layer().weight = nn.Parameter(new, requires_grad=False)


def _factors(weight_OI: Tensor, rank: int, init: str, scale: float) -> tuple[Tensor, Tensor]:
    """(B [O, R], A [R, I]) of which scale·B·A is a part of the matrix."""
    if rank > min(weight_OI.shape):
        raise ModelError(
            f"tune.method, init: {init} takes rank {rank} out of a matrix of {' × '.join(map(str, weight_OI.shape))}; "
            f"take a smaller rank (or rank_pattern), or init: kaiming"
        )
    if init == "olora":
        q, r = torch.linalg.qr(weight_OI)
        return q[:, :rank], r[:rank] / scale
    if init == "pissa":
        u, s, vh = torch.linalg.svd(weight_OI, full_matrices=False)
        u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    else:
        u, s, v = torch.svd_lowrank(weight_OI, rank, niter=int(init.removeprefix("pissa_niter_")))
        vh = v.T
    root = (s / scale).sqrt()
    return u * root, root[:, None] * vh
