"""Fetches model folders from the Hugging Face hub, or by extra from ModelScope, without pickle and without code."""

from __future__ import annotations

import re
from pathlib import Path

from tuneloop.core.errors import MissingExtra, ModelError

MODELSCOPE = "modelscope:"
WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt", "README.md"]
UNWANTED = ["*/*"]  # other formats of the same model live in subfolders


def is_id(name: str) -> bool:
    """Whether `name` has the form of a hub id."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name.removeprefix(MODELSCOPE)) is not None and not name.startswith(".")


def fetch(name: str, revision: str | None = None) -> Path:
    """The local snapshot of a hub id; downloads what is not there yet. Raises ModelError or MissingExtra."""
    if name.startswith(MODELSCOPE):
        return _from_modelscope(name.removeprefix(MODELSCOPE), revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED, etag_timeout=5
        )
    except GatedRepoError as error:
        raise ModelError(f"{name} is gated: accept its terms on the hub, then run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no local folder '{name}', and no such model on the hub (a private one needs `hf auth login`)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"'{name}' is not in the local hub cache and the hub cannot be reached. Connect once, or give a local "
            f"folder, a .gguf file, `embedded`, or a base of `tuneloop bases`."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"'{name}' could not be fetched from the hub: {error}") from error
    return Path(folder)


def _from_modelscope(name: str, revision: str | None) -> Path:
    try:
        from modelscope import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("modelscope", f"base '{MODELSCOPE}{name}'", "modelscope") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{name}' could not be fetched from ModelScope: {error}") from error
