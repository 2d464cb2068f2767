"""Writes a model as the standard Hugging Face folder that any other tool loads.

The folder appears whole or not at all; a full disk leaves the previous one as it was.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models.cache import building
from tuneloop.models.quiet import quiet
from tuneloop.models.safety import read_config

SAMPLING = ("do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    stop_ids: Collection[int] = (),
    dtype: torch.dtype | None = None,
    max_shard_size: str = "4GB",
) -> None:
    """Writes weights, config, generation config, tokenizer and chat template into `folder`, atomically.

    `stop_ids` end a generation (default: the eos tokens that model and tokenizer name); `dtype` is that of the saved
    parameters, None keeps each as it is. Raises ModelError when the disk is full; the previous folder then stays.
    """
    try:
        with building(folder) as new:
            write_model(model, tokenizer, new, stop_ids=stop_ids, dtype=dtype, max_shard_size=max_shard_size)
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: Exception) -> ModelError:
    """The error for a folder that could not be written, with the most likely cause in words."""
    number = getattr(error, "errno", None)
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = number in codes or any(f"(os error {code})" in str(error) for code in codes)  # safetensors' own errors
    why = "the disk is full (or the file size limit reached)" if full else str(error)
    kept = "the previous folder is unchanged" if folder.exists() else "nothing was left behind"
    return ModelError(f"{folder} could not be written: {why}; {kept}. Free some space and run the command again.")


def write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    stop_ids: Collection[int] = (),
    dtype: torch.dtype | None = None,
    max_shard_size: str = "4GB",
) -> None:
    """As save_model, but straight into an existing folder: for callers that check the result before they publish it."""
    original = model.generation_config
    model.generation_config = _generation_config(model, tokenizer, stop_ids)
    try:
        with quiet():
            model.save_pretrained(folder, state_dict=_state(model, dtype), max_shard_size=max_shard_size)
    finally:
        model.generation_config = original
    changes: dict[str, Any] = {} if dtype is None else {"dtype": str(dtype).removeprefix("torch.")}
    # after a dequantised import quantization_config would make every reload fail; the names are paths of this machine
    _edit(folder / "config.json", remove=("quantization_config", "_name_or_path", "_model_name_or_path"), **changes)
    write_tokenizer(tokenizer, folder)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes the tokenizer's files and chat template into an existing folder."""
    tokenizer.save_pretrained(folder)
    _edit(folder / "tokenizer_config.json", remove=("local_files_only", "is_local", "name_or_path"))


def _edit(path: Path, remove: Collection[str], **changes: Any) -> None:
    config = {name: value for name, value in read_config(path).items() if name not in remove}
    jsonl.write(path, {**config, **changes})


def _state(model: PreTrainedModel, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The state with parameters cast, tied ones still tied, buffers and what the model keeps in fp32 left alone."""
    state = model.state_dict()
    if dtype is None:
        return state
    castable = castable_parameters(model)
    cast: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    out: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))  # tied weights must stay one tensor, or they are written twice
        if name in castable and key not in cast:
            cast[key] = tensor.to(dtype)
        out[name] = cast[key] if name in castable else tensor
    return out


def castable_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that are saved in another dtype on request: all but those that the architecture keeps in fp32."""
    keep = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    return {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.is_floating_point() and not any(part in name for part in keep)
    }


def round_parameters(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Rounds parameters to `dtype` in place, as saving in it does, and keeps the dtype that they are computed in."""
    for parameter in castable_parameters(model).values():
        parameter.data.copy_(parameter.data.to(dtype))


def _generation_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int]
) -> GenerationConfig:
    """Stop and pad ids, and the sampling settings of the base where it samples (others would not validate)."""
    old = model.generation_config
    stops = sorted(stop_ids) or eos_ids(model, tokenizer)
    values: dict[str, Any] = {"eos_token_id": stops[0] if len(stops) == 1 else stops or None}
    values["bos_token_id"] = tokenizer.bos_token_id
    values["pad_token_id"] = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stops or [None])[0]
    if old is not None and old.do_sample:
        values |= {name: getattr(old, name) for name in SAMPLING if getattr(old, name, None) is not None}
    return GenerationConfig(**values)


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the model's generation config and its tokenizer name as ends of a text, sorted."""
    named: Any = model.generation_config.eos_token_id if model.generation_config is not None else None
    own: Any = tokenizer.eos_token_id
    return sorted(
        {int(token) for token in (own, *(named if isinstance(named, list) else [named])) if token is not None}
    )
