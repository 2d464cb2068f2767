"""IA3: a trained factor for each key, value and inner activation (Liu et al. 2022, arXiv 2205.05638), by peft."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from tuneloop.core.errors import ModelError
from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEYS_AND_VALUES = re.compile(
    r"(?:.*_)?(?:k|v|kv|qkv|key|value|key_value|query_key_value)(?:_b)?(?:_proj|_layer)?|c_attn|w(?:k|v|qkv)|Wqkv|W_pack"
)
"""Layers that make keys or values, by the names of transformers' architectures. Where queries come out of the same
layer they get factors too, which add nothing: a score is a product of query and key."""

LAST = ("down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h", "w2")
"""Names of a feed-forward's last layer, for the models whose inner width is the hidden size."""


class Ia3(Method):
    """Keys, values and the feed-forward's inner activations times learnt vectors; the result is an adapter of peft."""

    adapter: ClassVar[bool] = True

    targets: str | list[str] = "auto"
    """Layers whose outputs are multiplied: names (endings) or a regular expression; auto: those that make keys and
    values."""
    feedforward: str | list[str] = "auto"
    """Layers whose inputs are multiplied; auto: the last one of each feed-forward. Stacked experts have no such layer:
    where a model has nothing else, keys and values are multiplied alone."""
    layers: list[int] | None = None
    """Adapt only these decoder layers, counted from 0; -1 is the last."""

    def apply(self, model: PreTrainedModel) -> Any:
        from peft import IA3Config, TaskType, get_peft_model

        from tuneloop.models.targets import shortest, transposed
        from tuneloop.tune.targets import resolve

        second = _second_layers(model) if self.feedforward == "auto" else self.feedforward
        inner = resolve(model, second, self.layers) if second else []
        outer = resolve(model, _keys_and_values(model) if self.targets == "auto" else self.targets, self.layers)
        config = IA3Config(
            task_type=TaskType.CAUSAL_LM,
            target_modules=sorted({*shortest(outer, model), *shortest(inner, model)}),
            feedforward_modules=shortest(inner, model),
            fan_in_fan_out=transposed([*outer, *inner], model),
        )
        return get_peft_model(model, config, autocast_adapter_dtype=False)

    def words(self, model: Any) -> str:
        from peft.tuners.ia3 import IA3Layer

        from tuneloop.models.targets import expert_parameters

        inner = [layer.is_feedforward for layer in model.modules() if isinstance(layer, IA3Layer)]
        none = "; stacked experts get none, lora with experts: true adapts them" if expert_parameters(model) else ""
        return f"trained: factors for {inner.count(False)} key or value layers, {inner.count(True)} feed-forwards{none}"


def _keys_and_values(model: PreTrainedModel) -> list[str]:
    from tuneloop.tune.targets import endings, resolve

    linear = resolve(model, "auto")
    found = [name for name in linear if KEYS_AND_VALUES.fullmatch(name.rsplit(".", 1)[-1])]
    if not found:
        raise ModelError(
            f"tune.method.ia3.targets: which layers of {type(model).__name__} make keys and values is not known; name "
            f"them, among {', '.join(endings(linear))}"
        )
    return found


def _second_layers(model: PreTrainedModel) -> list[str]:
    """The linear layers outside attention that lead back to the hidden size."""
    from tuneloop.models.targets import expert_parameters
    from tuneloop.tune.targets import endings, resolve

    hidden, modules = model.config.get_text_config().hidden_size, dict(model.named_modules())
    linear = resolve(model, "auto")
    inside = [name for name in linear if "att" not in name.rsplit(".", 1)[0].rsplit(".", 1)[-1].lower()]
    sides = {name: _sides(modules[name]) for name in inside}
    found = [n for n, (into, out) in sides.items() if out == hidden and (into != hidden or n.endswith(LAST))]
    if not found and not expert_parameters(model):
        raise ModelError(
            f"tune.method.ia3.feedforward: which layer of {type(model).__name__} ends a feed-forward is not known. "
            f"Name it, among {', '.join(endings(linear))}, or give [] for keys and values alone"
        )
    return found


def _sides(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer or a Conv1D."""
    if hasattr(layer, "in_features"):
        return layer.in_features, layer.out_features
    return layer.nx, layer.nf
