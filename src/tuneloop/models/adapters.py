"""Adapters: saved with a record of their base, checked against a base, put on its model (peft, safetensors only)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneloop.core import digest, jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import bases, bottleneck, safety
from tuneloop.models.cache import building
from tuneloop.models.find import Base
from tuneloop.models.load import load_model
from tuneloop.models.save import unwritable, write_tokenizer

assert bottleneck.NAME  # its import teaches peft this type
WEIGHTS = "adapter_model.safetensors"
RECORD = "tuneloop.json"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Record:
    """What tuneloop.json beside an adapter says: the base it was made on, and the chat template it was trained with."""

    base: str
    weights_digest: str
    config: dict[str, Any]
    seed: int
    chat_template: str | None


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Base,
    folder: Path,
    *,
    seed: int = 0,
    stop_ids: Collection[int] = (),
) -> None:
    """Writes adapter weights, tokenizer, chat template and the record of the base, atomically.

    `seed` is the one that drew a new architecture's weights. Raises ModelError when the disk is full.
    """
    try:
        with building(folder) as new:
            # "auto" would ask the hub whether the vocabulary grew; tuneloop never resizes it
            model.save_pretrained(str(new), safe_serialization=True, save_embedding_layers=False)
            made_for = {"base_model_name_or_path": base.config.base or base.name}
            jsonl.write(new / "adapter_config.json", safety.read_config(new / "adapter_config.json") | made_for)
            (new / "README.md").unlink(missing_ok=True)  # peft's empty model card
            write_tokenizer(tokenizer, new)
            template = tokenizer.chat_template
            jsonl.write(new / RECORD, {
                "version": 1,
                "base": {
                    "name": base.name, "digest": base.digest, "weights_digest": base.weights_digest,
                    "licence": base.licence, "config": _portable(base), "seed": seed,
                },
                "stop_ids": sorted(stop_ids),
                "chat_template": digest.of_value(template) if template is not None else None,
            })  # fmt: skip
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error


def _portable(base: Base) -> dict[str, Any]:
    """The base's branch of the recipe with its local paths made absolute: the adapter may be used from anywhere."""
    config = base.config.model_dump(mode="json", exclude={"adapter", "chat_template"})
    for key in ("base", "tokenizer"):
        if config[key] is not None and config[key] not in bases.names() and Path(config[key]).exists():
            config[key] = str(Path(config[key]).resolve())
    return config


def read_record(folder: Path) -> Record | None:
    """The record of an adapter that tuneloop saved, None for others'. Raises ModelError when it is corrupt.

    The chat template is read only where its digest is the recorded one: one that was put there later is not used.
    """
    value = safety.read_config(folder / RECORD)
    if not value:
        return None
    try:
        base = value["base"]
        path = folder / "chat_template.jinja"
        template = path.read_text("utf-8") if path.is_file() else None
        if template is not None and digest.of_value(template) != value["chat_template"]:
            raise ModelError(f"{path} is not the template that this adapter was trained with; restore it or tune again")
        return Record(base["name"], base["weights_digest"], base["config"], base["seed"], template)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / RECORD}: not a record of tuneloop ({error} is missing)") from error


def check_folder(folder: Path) -> dict[str, Any]:
    """The adapter_config of a folder that is safe to load. Raises ModelError when it is not, or no adapter."""
    config = safety.read_config(folder / "adapter_config.json")
    if not config:
        raise ModelError(f"{folder} is no adapter: it has no adapter_config.json")
    safety.check_folder(folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} has no {WEIGHTS}")
    library = str((config.get("auto_mapping") or {}).get("parent_library") or "transformers")
    if library.split(".")[0] != "transformers" or config.get("megatron_config") is not None:
        raise ModelError(f"{folder}/adapter_config.json makes peft import a module ({library}): refused")
    return config


def check_belongs(folder: Path, base: Base) -> None:
    """Raises ModelError when an adapter of ours records another base than `base`, or brings unsafe files."""
    check_folder(folder)
    record = read_record(folder)
    if record is not None and record.weights_digest != base.weights_digest:
        raise ModelError(
            f"adapter {folder} was made on base '{record.base}' ({digest.short(record.weights_digest)}) and does not "
            f"fit '{base.name}' ({digest.short(base.weights_digest)}). Set model.base to '{record.base}', or tune "
            f"a new adapter."
        )


def attach(model: PreTrainedModel, folder: Path, base: Base, *, trainable: bool = False) -> PeftModel:
    """The model with the adapter of `folder` on it; `model` itself is changed.

    Raises ModelError when the adapter is made for another base, has other shapes, or holds values that are not finite.
    """
    check_belongs(folder, base)
    stored = _check_tensors(folder, model, base)
    try:
        adapted = PeftModel.from_pretrained(
            model,
            str(folder),
            is_trainable=trainable,
            torch_device=str(model.device),
            autocast_adapter_dtype=False,  # computes in the model's dtype, as it was trained
        )
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"adapter {folder} cannot be put on '{base.name}': {error}") from error
    if hasattr(adapted, "prompt_encoder"):
        adapted.prompt_encoder.to(model.dtype)  # peft makes virtual tokens in float32 whatever the model is in
    # peft only warns about weights that found no place
    used = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if used != stored:
        odd = sorted(used ^ stored)
        raise ModelError(f"adapter {folder} does not fit '{base.name}': {len(odd)} weights fit nowhere, e.g. {odd[0]}")
    return adapted if trainable else adapted.eval()


def load_with_adapter(
    base: Base, dtype: torch.dtype, *, seed: int = 0, device: str = "cpu"
) -> PreTrainedModel | PeftModel:
    """The base's model with its adapter on it where it has one: what evaluation and chat run."""
    if base.adapter is None:
        return load_model(base, dtype, seed=seed, device=device)
    record = read_record(base.adapter)
    model = load_model(base, dtype, seed=record.seed if record else seed, device=device)
    return attach(model, base.adapter, base)


def _check_tensors(folder: Path, model: PreTrainedModel, base: Base) -> set[str]:
    """The names stored, after shapes of LoRA factors were compared with the model's layers and values with infinity."""
    layers = dict(model.named_modules())
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = list(file.keys())
        for name in names:
            tensor = file.get_tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"adapter {folder}: {name} holds values that are not finite; this adapter is broken")
            path, _, factor = name.removeprefix(PREFIX).partition(".lora_")
            if factor in ("A.weight", "B.weight"):
                _check_factor(
                    folder, base, path, factor, tuple(tensor.shape), layers.get(path.replace(".base_layer", ""))
                )
    return set(names)


def _check_factor(
    folder: Path, base: Base, path: str, factor: str, shape: tuple[int, ...], layer: torch.nn.Module | None
) -> None:
    size = shape[1] if factor == "A.weight" else shape[0]
    weight = getattr(layer, "weight", None)
    if layer is not None and weight is None:
        return  # stacked experts hold several parameters; peft compares their shapes itself
    if not isinstance(weight, torch.Tensor) or size not in weight.shape:  # GPT-2's Conv1D has its sides swapped
        has = f"{tuple(weight.shape)}" if isinstance(weight, torch.Tensor) else "no such layer"
        told = safety.read_config(folder / "adapter_config.json").get("base_model_name_or_path")
        raise ModelError(
            f"adapter {folder} was made on base '{told}' and does not fit '{base.name}': {path} has a side of {size} "
            f"there; the base has {has}. Set model.base to the adapter's own base."
        )
