"""Prompt tuning: embeddings of virtual tokens before the input are trained (Lester et al. 2021, arXiv 2104.08691)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tuneloop.tune.methods import Method, Setting

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Prompt(Method):
    """Virtual tokens before every row, the model itself frozen; the result is peft's adapter PROMPT_TUNING."""

    adapter: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    continued: ClassVar[Mapping[str, str]] = {"tokens": "num_virtual_tokens"}

    tokens: int = Field(20, ge=1)
    """Number of virtual tokens. They count towards the model's context."""
    text: str | None = None
    """What the virtual tokens start as, e.g. `Classify the review as positive or negative.`; by default they start as
    random tokens of the vocabulary."""

    def apply(self, model: PreTrainedModel) -> Any:
        from peft import PromptTuningConfig, TaskType, get_peft_model

        config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=self.tokens)
        trained = get_peft_model(model, config)
        trained.prompt_encoder.to(model.dtype)  # type: ignore[operator]  # as other adapters, see lora
        return trained

    def initialise(self, model: Any, setting: Setting) -> None:
        import torch

        from tuneloop.tune.virtual_tokens import first_ids

        ids = first_ids(self.tokens, self.text, setting, "prompt")
        embeddings = model.get_base_model().get_input_embeddings()
        with torch.no_grad():  # through the module, as Gemma's scales what it looks up
            first = embeddings(torch.tensor(ids, device=embeddings.weight.device))
            model.prompt_encoder["default"].embedding.weight.copy_(first)

    def words(self, model: Any) -> str:
        start = "random tokens" if self.text is None else f"the tokens of '{self.text}'"
        return f"{self.tokens} virtual tokens stand before each row; they start as {start}"
