"""Prefix tuning: keys and values of virtual tokens in every layer are trained (Li & Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from tuneloop.tune.methods import Method, Setting

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Prefix(Method):
    """Keys and values before every row in every layer, the model frozen; the result is peft's adapter PREFIX_TUNING."""

    adapter: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    continued: ClassVar[Mapping[str, str]] = {"tokens": "num_virtual_tokens", "projection": "prefix_projection"}

    tokens: int = Field(20, ge=1)
    """Number of virtual tokens. They count towards the model's context."""
    text: str | None = None
    """The prefix starts as the keys and values that the model computes of this text, by default of random tokens."""
    projection: bool = False
    """Train the prefix through a two-layer network (the paper's reparametrisation), which is dropped afterwards."""
    projection_size: int | None = Field(None, ge=1)
    """Inner width of that network; by default the width of all keys of a layer."""

    @model_validator(mode="after")
    def _text_has_a_place(self) -> Self:
        if self.projection and self.text is not None:
            raise ValueError("a projected prefix cannot start from a text: leave out text or projection")
        if self.projection_size is not None and not self.projection:
            raise ValueError("projection_size is the width of the projection: set projection: true with it")
        return self

    def apply(self, model: PreTrainedModel) -> Any:
        from peft import PrefixTuningConfig, TaskType, get_peft_model

        config = PrefixTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            num_virtual_tokens=self.tokens,
            prefix_projection=self.projection,
            encoder_hidden_size=self.projection_size,  # type: ignore[arg-type]  # peft fills None in
        )
        trained = get_peft_model(model, config)
        trained.prompt_encoder.to(model.dtype)  # type: ignore[operator]  # as other adapters, see lora
        if model.device.type != "meta":
            _check_shapes(trained)
        return trained

    def initialise(self, model: Any, setting: Setting) -> None:
        import torch

        from tuneloop.forward import virtual
        from tuneloop.tune.virtual_tokens import first_ids

        if self.projection:
            return
        ids = first_ids(self.tokens, self.text, setting, "prefix")
        layers = virtual.keys_and_values(model.get_base_model(), ids)
        # [2 · layers, heads, V, head size] → peft's order, [V, 2 · layers · heads · head size]
        flat = torch.stack([side[0] for layer in layers for side in layer]).permute(2, 0, 1, 3).flatten(1)
        with torch.no_grad():
            model.prompt_encoder["default"].embedding.weight.copy_(flat)

    def finish(self, model: Any) -> None:
        if not self.projection:
            return
        from peft import PrefixEncoder

        prefix, config = model.get_prompt_embedding_to_save("default"), model.peft_config["default"]
        config.prefix_projection = False
        encoder = PrefixEncoder(config).to(model.device, prefix.dtype)
        encoder.load_prompt_embeddings(prefix)
        model.prompt_encoder["default"] = encoder

    def words(self, model: Any) -> str:
        how = "through a projection" if self.projection else "directly"
        return f"keys and values of {self.tokens} virtual tokens stand before each row, trained {how}"


def _check_shapes(trained: Any) -> None:
    """Raises ModelError for an architecture whose keys and values are not what peft makes a prefix of."""
    from tuneloop.core.errors import ModelError
    from tuneloop.forward import virtual

    core, config = trained.get_base_model(), trained.peft_config["default"]
    made = (config.num_attention_heads, config.token_dim // config.num_attention_heads)
    for keys, values in virtual.keys_and_values(core, [0]):
        for found in ((keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3])):
            if found != made:
                raise ModelError(
                    f"tune.method.prefix: {type(core).__name__} has {found[0]} heads of size {found[1]} in its cache, "
                    f"peft's prefix {made[0]} of size {made[1]} in every layer; use method prompt"
                )
