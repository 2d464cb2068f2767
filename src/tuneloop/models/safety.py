"""Refuses model folders that would run code: custom Python, `auto_map`, pickled weights.

Weights are safetensors only and remote code cannot be switched on anywhere (CVE-2025-66448, CVE-2025-53002 and kin).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError, ModelError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json")
LARGEST_TEMPLATE = 1 << 20  # bytes; the longest published chat templates are below 50 kB


def check_folder(folder: Path) -> None:
    """Raises ModelError when a model, tokenizer or adapter folder brings code or only pickled weights."""
    refuse_code(folder)
    refuse_pickle(folder)


def refuse_code(folder: Path) -> None:
    """Raises ModelError for Python files and for configs that point to custom classes."""
    scripts = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py"))
    if scripts:
        raise ModelError(
            f"{folder} brings its own Python code ({', '.join(scripts[:3])}), which tuneloop never runs. Remove "
            f"them when the architecture is a standard one of transformers; else take another base."
        )
    for name in CONFIGS:
        value = read_config(folder / name)
        if value.get("auto_map"):
            raise ModelError(
                f"{folder / name} asks for custom code (auto_map: {value['auto_map']}), which tuneloop never runs. "
                f"Remove `auto_map` when the architecture is a standard one of transformers; else take another base."
            )
    for template in folder.glob("*.jinja"):
        if template.stat().st_size > LARGEST_TEMPLATE:
            raise ModelError(f"{template}: a chat template of {template.stat().st_size:,} bytes (limit 1 MiB): refused")


def refuse_pickle(folder: Path) -> None:
    """Raises ModelError for pickled weights without safetensors (a training_args.bin beside them is never read)."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has its weights as pickle only ({', '.join(pickles[:3])}): loading a pickle can run any code. "
            f"Take a safetensors version of this model, or convert it on a machine that you can lose."
        )


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object, {} where the file is missing. Raises ModelError when it is no JSON object."""
    if not path.is_file():
        return {}
    try:
        value = jsonl.read(path)
    except DataError as error:
        raise ModelError(str(error)) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)
