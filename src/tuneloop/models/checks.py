"""Checks a model folder before anything of it is loaded: safe, complete, a causal language model, with a tokenizer."""

from __future__ import annotations

from pathlib import Path

from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import did_you_mean
from tuneloop.models import safety

PLAIN = {"llama": "LlamaForCausalLM"}
"""Architecture → its causal language model, where the tokenizer is what its own files say. For all others transformers
is asked, which brings torch in: more than a second, that preparing data has no other need of."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def check_model_folder(folder: Path) -> None:
    """Raises ModelError unless `folder` holds a causal language model with a tokenizer and without code."""
    config = safety.read_config(folder / "config.json")
    if not config:
        hint = " (it holds a .gguf file: name that file)" if any(folder.glob("*.gguf")) else ""
        raise ModelError(f"{folder} is no model folder: it has no config.json{hint}")
    safety.check_folder(folder)
    check_architecture(str(config.get("model_type")), config.get("architectures"), folder)
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown method")
        raise ModelError(f"{folder} is quantised ({method}): take the original weights as base, quantise after tuning")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} has no weights: no .safetensors file beside config.json")
    check_tokenizer_files(folder)


def check_architecture(model_type: str, architectures: list[str] | None, source: object) -> None:
    """Raises ModelError unless transformers knows `model_type` as causal language model and the folder holds one."""
    if model_type in PLAIN and architectures == [PLAIN[model_type]]:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING:
        raise ModelError(
            f"{source}: transformers does not know the architecture '{model_type}'"
            f"{did_you_mean(model_type, CONFIG_MAPPING)}"
        )
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    names = (names,) if isinstance(names, str) else names
    if not names or (architectures and not set(architectures) & set(names)):
        found = ", ".join(architectures or [model_type])
        wanted = f" (like {names[0]})" if names else ""
        raise ModelError(f"{source}: {found} is no causal language model{wanted}, and only those can be tuned")


def check_tokenizer_files(folder: Path) -> None:
    """Raises ModelError when the folder has no tokenizer."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}); copy the tokenizer's files there"
        )
