"""A tuned model anywhere on the way from its base (scale 0) to what was trained (scale 1), and saved there.

After WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903): θ = θ_base + scale · (θ_tuned - θ_base), in float32. Of adapters
the tensors that make its update linear are scaled, so that W + scale · B·A holds exactly.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from tuneloop.core.errors import ModelError, Unscalable
from tuneloop.models import adapters
from tuneloop.models.find import Base
from tuneloop.models.load import load_model
from tuneloop.models.save import save_model
from tuneloop.models.tokenizer import load_tokenizer

TO_ZERO = (".lora_B.", ".lora_embedding_A.", ".up.")
"""The factors of an update that are scaled; the others (A, down) stay, since the update is linear in either."""
STAYS = (".lora_A.", ".lora_embedding_B.", ".down.")
SAVED = ".modules_to_save."


class Scalable:
    """A model whose change from its base can be scaled in place. Twice the memory of what was trained is held."""

    def __init__(self, model: PreTrainedModel | PeftModel, origins: dict[str, Tensor]) -> None:
        self.model = model
        parameters = dict(model.named_parameters())
        self._ends = [(parameters[name], origins[name], parameters[name].detach().clone()) for name in origins]

    @torch.no_grad()
    def to(self, scale: float) -> PreTrainedModel | PeftModel:
        """The model at this scale: at 0 and 1 exactly the values of base and tuned. Raises ModelError beyond them."""
        if not 0 <= scale <= 1:
            raise ModelError(f"scale {scale}: from 0 (the base) to 1 (as it was tuned)")
        for parameter, origin, tuned in self._ends:
            between = torch.lerp(origin.float(), tuned.float(), scale)
            parameter.copy_(tuned if scale == 1 else origin if scale == 0 else between.to(parameter.dtype))
        return self.model


def load_scalable(tuned: Base, origin: Base, dtype: torch.dtype, *, seed: int = 0, device: str = "cpu") -> Scalable:
    """A tuned model with its base: `origin` is read only where a whole model was trained.

    Raises Unscalable for adapters that are no update of weights (virtual tokens).
    """
    model = adapters.load_with_adapter(tuned, dtype, seed=seed, device=device)
    if tuned.adapter is not None:
        return Scalable(model, _origins(model, tuned.adapter))
    before = dict(load_model(origin, dtype, seed=seed, device=device).named_parameters())
    changed = {
        name: before[name].detach()
        for name, parameter in model.named_parameters()
        if name in before and not torch.equal(parameter, before[name])
    }
    return Scalable(model, changed)


def save_scaled(scaled: Scalable, tuned: Base, folder: Path, template: str | None, stop_ids: list[int]) -> None:
    """Writes the model at its present scale as tuning would: an adapter of the same base, or a standard folder."""
    tokenizer = load_tokenizer(tuned)
    if template is not None:
        tokenizer.chat_template = template
    if tuned.adapter is None:
        assert isinstance(scaled.model, PreTrainedModel)
        save_model(scaled.model, tokenizer, folder, stop_ids=stop_ids)
        return
    record = adapters.read_record(tuned.adapter)
    told = {"name": record.base} if record is not None else {}
    assert isinstance(scaled.model, PeftModel)
    adapters.save_adapter(
        scaled.model, tokenizer, replace(tuned, adapter=None, **told), folder, seed=record.seed if record else 0,
        stop_ids=stop_ids, quantization=record.quantization if record else None,
    )  # fmt: skip


def _origins(adapted: Any, folder: Path) -> dict[str, Tensor]:
    """Of each tensor of an adapter that is scaled the value with which the model is its base."""
    modules, parameters = dict(adapted.named_modules()), dict(adapted.named_parameters())
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name in _own(adapted, parameters):
        value = parameters[name]
        if ".ia3_l." in name:
            found[name] = torch.ones_like(value)
        elif any(part in name for part in TO_ZERO):
            found[name] = torch.zeros_like(value)
        elif ".lora_magnitude_vector." in name:
            layer: Any = modules[name.partition(".lora_magnitude_vector.")[0]]
            found[name] = _norm(modules[name.rpartition(".")[0]], layer).to(value.dtype)
        elif SAVED in name:
            found[name] = parameters[_original(name)].detach().clone()
        elif not any(part in name for part in STAYS):
            unknown.append(name)
    if unknown or not found:
        raise Unscalable(
            f"{folder} cannot be scaled: {unknown[0] if unknown else 'it'} is no update of the base's weights. Virtual "
            "tokens (prompt, prefix) are there or not; use another remedy: replay, keep, fewer epochs"
        )
    return found


def _own(adapted: Any, parameters: dict[str, nn.Parameter]) -> list[str]:
    """The parameters that belong to the adapter."""
    from peft import get_peft_model_state_dict

    stored = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    places = {tensor.data_ptr() for tensor in stored.values()}
    return [name for name, parameter in parameters.items() if parameter.data_ptr() in places]


def _original(name: str) -> str:
    before, _, after = name.partition(SAVED)
    return f"{before}.original_module.{after.partition('.')[2]}"


def _norm(direction: Any, layer: Any) -> Tensor:
    """DoRA's magnitude of the untouched weight."""
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer.get_base_layer())
    return direction.get_weight_norm(weight, torch.zeros_like(weight), 0.0).detach()
