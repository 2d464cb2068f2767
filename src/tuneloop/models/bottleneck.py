"""Bottleneck adapters (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247) as a peft type.

Importing this registers the type BOTTLENECK with peft, so that peft's own from_pretrained reads such folders too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError
from tuneloop.models.blocks import blocks_of

NAME = "BOTTLENECK"
ATTENTION = ("attn", "attention")
MLP = ("mlp", "feed_forward", "ffn", "moe")


@dataclass
class BottleneckConfig(PeftConfig):
    """What adapter_config.json says of a bottleneck adapter."""

    target_modules: list[str] | set[str] | str | None = field(default=None)
    """The modules after whose output an adapter stands, by their paths."""
    exclude_modules: list[str] | str | None = field(default=None)
    hidden_size: int = field(default=0)
    """Width of the outputs that are adapted."""
    bottleneck: int = field(default=64)
    """Inner width."""
    nonlinearity: str = field(default="relu")
    scaling: float = field(default=1.0)
    dropout: float = field(default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME  # type: ignore[assignment]


class Adapter(nn.Module):
    """x + scaling · up(f(down(x))); `up` starts at zero, so that the model starts as it was."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        self.down = nn.Linear(config.hidden_size, config.bottleneck)
        self.up = nn.Linear(config.bottleneck, config.hidden_size)
        self.activation = ACT2FN[config.nonlinearity]
        self.dropout = nn.Dropout(config.dropout)
        self.scaling = config.scaling
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scaling * self.up(self.dropout(self.activation(self.down(x))))


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module of the base with adapters after its output."""

    adapter_layer_names = ("bottleneck_layers",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_layers = nn.ModuleDict({})
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config)
        self._active_adapter = adapter_name

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Adds one more adapter after the output; it computes where and in what the base does."""
        like = next(self.base_layer.parameters())
        self.bottleneck_layers[adapter_name] = Adapter(config).to(like.device, like.dtype)
        self.set_adapter(adapter_name, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return out
        hidden, *rest = out if isinstance(out, tuple) else (out,)  # routers of some experts return their logits too
        for name in self.active_adapters:
            if name in self.bottleneck_layers:
                hidden = self.bottleneck_layers[name](hidden)
        return (hidden, *rest) if isinstance(out, tuple) else hidden


class BottleneckModel(BaseTuner):
    """Puts adapters after the modules that the config names; none of them can become part of a weight."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # as peft declares it

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        setattr(parent, target_name, layer)

    def _check_merge_allowed(self) -> None:
        raise ValueError("bottleneck adapters are non-linear and cannot be merged into weights")


def places(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """Paths of the modules whose output leaves attention or MLP ('attention', 'mlp'), in every layer that has them.

    That is the last projection to the hidden size (o_proj, c_proj, down_proj, …), or the whole block of experts. The
    adapter stands before the residual addition. Raises ModelError where no layer has such a module.
    """
    path, blocks = blocks_of(model)
    width = model.config.get_text_config().hidden_size
    found: list[str] = []
    for kind in wanted:
        of_kind = [
            f"{path}.{number}.{inside}"
            for number, block in enumerate(blocks)
            for inside in _outputs(block, ATTENTION if kind == "attention" else MLP, width, kind == "mlp")
        ]
        if not of_kind:
            raise ModelError(
                f"tune.method.adapter.places: no {kind} was found in the layers of {type(model).__name__}; choose "
                f"another place or another method"
            )
        found += of_kind
    return found


def _outputs(block: nn.Module, words: tuple[str, ...], width: int, whole: bool) -> list[str]:
    for name, module in block.named_children():
        if not any(word in name.lower() for word in words) or "norm" in name.lower():
            continue
        last = [inner for inner, child in module.named_children() if _projects_to(child, width)]
        if last:
            return [f"{name}.{last[-1]}"]
        if whole:
            return [name]
    return []


def _projects_to(module: nn.Module, width: int) -> bool:
    if isinstance(module, Conv1D):
        return module.nf == width
    return getattr(module, "out_features", None) == width


# what peft's register_peft_method does once its closed enum PeftType knows the name; types are looked up as strings
PEFT_TYPE_TO_CONFIG_MAPPING[NAME] = BottleneckConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[NAME] = BottleneckModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[NAME] = BottleneckModel.prefix  # type: ignore[index]
