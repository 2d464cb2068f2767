"""How OpenAI-compatible servers differ: what they say of their models, what makes their sampling plain, how they load
adapters. Asks nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import listed
from tuneloop.generate.config import Dialect

CONTEXT = ("max_model_len", "context", "n_ctx")
"""Tokens of prompt and answer together, as lists of models call them: vLLM and SGLang, ours, llama.cpp."""
OWNERS: dict[str, Dialect] = {
    "vllm": "vllm", "sglang": "sglang", "llamacpp": "llama_cpp",
}  # fmt: skip
"""What they say of themselves there (`owned_by`)."""
_BY_GENERATION_CONFIG = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
PLAIN: dict[str, dict[str, Any]] = {
    "vllm": _BY_GENERATION_CONFIG, "sglang": _BY_GENERATION_CONFIG,
    "llama_cpp": {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}  # fmt: skip
"""What makes sampling plain: else they take what the model's generation_config.json says (vLLM and SGLang; a penalty on
repetitions changes greedy answers too) or their own (llama.cpp: top_k 40, top_p 0.95, min_p 0.05)."""


@dataclass(frozen=True)
class Adapters:
    """How a server is told to load and drop adapters, which it reads from a folder."""

    load: str
    unload: str
    model: str
    """The field `model` of a request for one."""
    needs: str
    """What the server must be started with."""


ADAPTERS = {
    "vllm": Adapters(
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "{name}",
        "--enable-lora --max-lora-rank … and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
    ),
    "sglang": Adapters(
        "/load_lora_adapter", "/unload_lora_adapter", "{base}:{name}",
        "--enable-lora --max-lora-rank … --lora-target-modules all",
    ),
}  # fmt: skip


def spoken(told: dict[str, Any], wanted: Literal["auto"] | Dialect = "auto") -> Dialect:
    """Which server says this of a model, unless it is known; `openai` for one that nobody knows."""
    return OWNERS.get(str(told.get("owned_by")), "openai") if wanted == "auto" else wanted


def context(told: dict[str, Any]) -> int | None:
    """Tokens of prompt and answer together, where it is told."""
    meta = told.get("meta")  # llama.cpp's
    facts = {**(meta if isinstance(meta, dict) else {}), **told}
    return next((facts[key] for key in CONTEXT if isinstance(facts.get(key), int)), None)


def only(url: str, known: dict[str, dict[str, Any]] | None) -> str:
    """The model of a server that has just one; adapters are listed with their base as `parent`."""
    bases = [name for name, told in (known or {}).items() if not told.get("parent")]
    if len(bases) == 1:
        return bases[0]
    there = f"it has: {listed(sorted(bases))}" if bases else "it does not list its models"
    raise ModelError(f"which model of {url}? Set serve.upstream.model; {there}")
