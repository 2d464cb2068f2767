"""The recipe's branch `model`: which model, with which tokenizer, template and precision."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath


class ModelConfig(Branch):
    """Exactly one of `base` and `architecture`; without either the embedded base."""

    base: InputPath | None = "embedded"
    """`embedded`, a name of `tuneloop bases`, a folder, a run, a .gguf file, a hub id (org/name), modelscope:id."""
    architecture: dict[str, Any] | None = None
    """Values of a transformers config with its `model_type`: a new model with random weights, seeded by the recipe."""
    tokenizer: InputPath | None = None
    """Folder with the tokenizer of a new model; only together with `architecture`."""
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of the computation; auto takes the fast one of this machine that is safe."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    chat_template: InputPath | None = None
    """A Jinja file that takes the place of the tokenizer's own chat template."""
    adapter: InputPath | None = None
    """Folder of an adapter on top of the base: tuning starts from it, evaluation and chat apply it."""

    @model_validator(mode="before")
    @classmethod
    def _architecture_replaces_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("architecture") is not None and "base" not in value:
            return {**value, "base": None}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.base is None) == (self.architecture is None):
            raise ValueError("give exactly one of `base` (an existing model) and `architecture` (a new one)")
        if self.architecture is None:
            if self.tokenizer is not None:
                raise ValueError("`tokenizer` goes with `architecture`; a base brings its own tokenizer")
            return self
        if not isinstance(self.architecture.get("model_type"), str):
            raise ValueError("`architecture` needs its `model_type`, e.g. model_type: llama")
        if self.tokenizer is None:
            raise ValueError("`architecture` needs `tokenizer`, the folder of the tokenizer that the new model reads")
        if self.revision is not None or self.adapter is not None:
            raise ValueError("`revision` and `adapter` belong to an existing model, not to a new `architecture`")
        return self
