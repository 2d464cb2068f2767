"""Adapters: saved with a record of their base, checked against a base, put on its model (peft, safetensors only)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneloop.core import digest, jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import bases, safety
from tuneloop.models.cache import building
from tuneloop.models.find import Base
from tuneloop.models.load import load_model
from tuneloop.models.quantize import BITS, Quantization
from tuneloop.models.save import unwritable, write_tokenizer

if TYPE_CHECKING:
    from peft import PeftModel  # its import takes a second, which methods without an adapter save

WEIGHTS = "adapter_model.safetensors"
RECORD = "tuneloop.json"
PREFIX = "base_model.model."
Shapes = dict[str, tuple[int, ...]]
"""Tensors of an adapter: stored name → shape."""


@dataclass(frozen=True)
class Record:
    """What tuneloop.json beside an adapter says: the base it was made on, and the chat template it was trained with."""

    base: str
    weights_digest: str
    config: dict[str, Any]
    seed: int
    chat_template: str | None
    quantization: Quantization | None = None
    """How the base's weights were held while the adapter was trained."""


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Base,
    folder: Path,
    *,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    quantization: Quantization | None = None,
) -> None:
    """Writes adapter weights, tokenizer, chat template and the record of the base, atomically.

    `seed` is the one that drew a new architecture's weights, `quantization` how the base was held. Raises ModelError
    when the disk is full.
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
                    "licence": base.licence, "config": _portable(base), "seed": seed, "quantization": quantization,
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
        quantization = base.get("quantization")
        if quantization not in (None, *BITS):
            raise ModelError(f"{folder / RECORD}: the base was held in '{quantization}', which this version cannot do")
        return Record(base["name"], base["weights_digest"], base["config"], base["seed"], template, quantization)
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
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    from tuneloop.models import bottleneck
    from tuneloop.models.adapted import put_right

    check_belongs(folder, base)
    stored = shapes(folder)
    assert bottleneck.NAME  # its import teaches peft this type
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode, config.base_model_name_or_path = not trainable, model.name_or_path or None
        made: Any = get_peft_model(model, config, autocast_adapter_dtype=False)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"adapter {folder} {_made_on(folder)} and does not fit '{base.name}': {error}") from error
    _check_shapes(folder, stored, shapes_of(made), base)
    adapted = put_right(made, model.dtype)  # it computes in the model's dtype, as it was trained
    set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS, device=str(model.device)))
    return adapted if trainable else adapted.eval()


def shapes_of(adapted: PeftModel) -> Shapes:
    """What would be stored of an adapter that is on a model, on the meta device too."""
    from peft import get_peft_model_state_dict

    config: Any = adapted.peft_config["default"]
    if config.is_prompt_learning:  # peft computes the values, which the meta device has none of
        of_token = 2 * config.num_layers if config.peft_type == "PREFIX_TUNING" else 1
        return {"prompt_embeddings": (config.num_virtual_tokens, of_token * config.token_dim)}
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def shapes(folder: Path) -> Shapes:
    """What is stored of an adapter. Raises ModelError where it cannot be read or a value is not finite."""
    found: Shapes = {}
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is a file, no dictionary
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise ModelError(f"adapter {folder}: {name} holds values that are not finite; it is broken")
                found[name] = tuple(tensor.shape)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter {folder}: {WEIGHTS} cannot be read ({error}); take it from its run again") from error
    return found


def _check_shapes(folder: Path, stored: Shapes, needed: Shapes, base: Base) -> None:
    """Raises ModelError where the adapter holds other tensors than the base has places for: peft only warns."""
    odd = sorted(name for name in stored.keys() | needed.keys() if stored.get(name) != needed.get(name))
    if odd:
        there, here = (sides.get(odd[0], "none") for sides in (stored, needed))
        raise ModelError(
            f"adapter {folder} {_made_on(folder)} and does not fit '{base.name}': {len(odd)} of its tensors have no "
            f"place or another shape, e.g. {odd[0].removeprefix(PREFIX)} is {there} there, the base needs {here}. Set "
            f"model.base to the adapter's own base."
        )


def _made_on(folder: Path) -> str:
    told = safety.read_config(folder / "adapter_config.json").get("base_model_name_or_path")
    return f"was made on base '{told}'"


def load_with_adapter(
    base: Base, dtype: torch.dtype, *, seed: int = 0, device: str = "cpu"
) -> PreTrainedModel | PeftModel:
    """The base's model with its adapter on it where it has one, in the bits that the adapter was trained on: what
    evaluation and chat run."""
    if base.adapter is None:
        return load_model(base, dtype, seed=seed, device=device)
    record = read_record(base.adapter)
    if record is not None:
        seed = record.seed
    quantization = record.quantization if record else None
    return attach(load_model(base, dtype, seed=seed, device=device, quantization=quantization), base.adapter, base)
