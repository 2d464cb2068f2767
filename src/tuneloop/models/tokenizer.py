"""Loads a base's tokenizer, from local folders only.

Apart from load.py, which brings in all that models need: counting tokens takes half the start-up time without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.core.errors import ModelError
from tuneloop.models import safety
from tuneloop.models.checks import PLAIN, check_tokenizer_files
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, read_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """The base's fast tokenizer, with the chat template that the recipe (or the adapter's run) puts in its place."""
    tokenizer = tokenizer_from(base.path)
    if base.chat_template is not None:
        tokenizer.chat_template = base.chat_template
    config = safety.read_config(base.path / "config.json")
    rows = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if not base.is_new and rows is not None and len(tokenizer) > rows:
        raise ModelError(
            f"{base.path}: the tokenizer has {len(tokenizer)} tokens, the model only {rows}; one is not its own"
        )
    return tokenizer


def is_tokenizer_alone(config: ModelConfig) -> bool:
    """Whether `base` is a folder with a tokenizer and no model: enough to preview and check rows, not to tune."""
    folder = Path(config.base) if config.base is not None else None
    return folder is not None and (folder / "tokenizer.json").is_file() and not (folder / "config.json").is_file()


def load_tokenizer_alone(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder that holds nothing else."""
    assert config.base is not None
    tokenizer = tokenizer_from(Path(config.base))
    template = read_template(config)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def tokenizer_from(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder. Raises ModelError when there is none or when it is unreadable."""
    check_tokenizer_files(folder)
    safety.refuse_code(folder)
    try:
        tokenizer = _loader_of(folder).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: this tokenizer has no fast version, so exact loss masks cannot be computed")
    return tokenizer


def _loader_of(folder: Path) -> Any:
    """AutoTokenizer, or the class that it would take, where that is plain: it asks for the model's configuration, whose
    import brings in torch and all that models need."""
    names = safety.read_config(folder / "tokenizer_config.json")
    model_type = safety.read_config(folder / "config.json").get("model_type")
    if model_type in PLAIN and names.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer
