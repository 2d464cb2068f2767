"""Which layers of a model an adapter takes: linear layers, stacked experts, and never the head or a router.

Knows architectures by what they are made of, not by their names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError

READ_DIRECTLY = frozenset({"out_proj", "x_proj", "dt_proj"})
"""Linear layers of a state-space mixer whose weights its kernels take: an adapter beside them would be passed over."""


@dataclass(frozen=True)
class Router:
    """A module that chooses experts, and at which place of what it returns its logits stand."""

    module: nn.Module
    logits: int

    @property
    def experts(self) -> int:
        """How many it chooses from."""
        own: Any = getattr(self.module, "num_experts", None)
        return int(own) if own else next(self.module.parameters()).shape[0]


def routers(model: nn.Module) -> dict[str, Router]:
    """The routers of a model by name, in the order in which they run; empty without experts."""
    declared = [
        kind for module in model.modules() if isinstance(module, PreTrainedModel) for kind in _declared(module).items()
    ]
    return {
        name: Router(module, place)
        for name, module in model.named_modules()
        if (place := next((place for kind, place in declared if isinstance(module, kind)), None)) is not None
    }


def _declared(model: PreTrainedModel) -> dict[type[nn.Module], int]:
    """Classes of routers and the places of their logits, as an architecture names them for transformers to record."""
    recorded: Any = (model._can_record_outputs or {}).get("router_logits") or ()
    recorded = recorded if isinstance(recorded, (list, tuple)) else (recorded,)
    return dict((each, 1) if isinstance(each, type) else (each.target_class, each.index) for each in recorded)


def linear_targets(model: PreTrainedModel) -> list[str]:
    """Full names of every linear layer except output head, routers, gates of one value, and those in READ_DIRECTLY.

    Gates scale a whole branch by one number: an update of any rank would be larger than the layer.
    """
    head = model.get_output_embeddings()
    inside = tuple(routers(model))
    kernels = [f"{name}." for name, module in model.named_modules() if hasattr(module, "ssm_state_size")]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        and module is not head
        and getattr(module, "out_features", None) != 1
        and not any(name == router or name.startswith(f"{router}.") for router in inside)
        and not (name.startswith(tuple(kernels)) and name.rpartition(".")[2] in READ_DIRECTLY)
    ]


def expert_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The stacked weights [experts, …, …] of mixture-of-experts layers, by full name."""
    return {name: p for name, p in model.named_parameters() if p.ndim == 3 and ".experts." in f".{name}"}


def for_peft(model: PreTrainedModel, names: Collection[str], *, experts: bool = False) -> dict[str, Any]:
    """Layers by full name (`linear_targets` gives all), and stacked experts where asked, as options of a LoraConfig.

    `target_parameters` then holds stacked experts, and weights of linear layers whose names peft would take for those
    of experts. Raises ModelError where `experts` is asked of a model whose experts are no stacked weights.
    """
    stacked = expert_parameters(model)
    if experts and not stacked:
        raise ModelError(
            f"tune.method, experts: {type(model).__name__} has no stacked experts; leave it out (experts that are "
            "linear layers of their own are adapted in any case)"
        )
    taken = _taken_for_experts(model)
    alike = [name for name in names if name.rpartition(".")[2] in taken]
    plain = [name for name in names if name.rpartition(".")[2] not in taken]
    parameters = [*(f"{name}.weight" for name in alike), *(stacked if experts else ())]
    return {
        "target_modules": shortest(plain, model),
        "target_parameters": parameters or None,
        "fan_in_fan_out": transposed(names, model),
    }


def transposed(names: Collection[str], model: PreTrainedModel) -> bool:
    """Whether these layers hold their matrices as [in, out], as GPT-2's do: what peft calls fan_in_fan_out."""
    return any(isinstance(model.get_submodule(name), Conv1D) for name in names)


def shortest(names: Sequence[str], model: PreTrainedModel) -> list[str]:
    """The shortest endings that mean exactly these modules: what other tools expect in adapter_config.json.

    peft shortens long lists of full names by itself, but not IA3's second list, which must stay a part of the first.
    """
    wanted = set(names)
    others = [f".{name}" for name, _ in model.named_modules() if name not in wanted]
    alone: dict[str, bool] = {}

    def ending(name: str) -> str:
        parts = name.split(".")
        for count in range(1, len(parts)):
            short = ".".join(parts[-count:])
            if short not in alone:
                alone[short] = not any(other.endswith(f".{short}") for other in others)
            if alone[short]:
                return short
        return name

    return sorted({ending(name) for name in names})


def _taken_for_experts(model: PreTrainedModel) -> frozenset[str]:
    """Names that peft translates to those of stacked experts and routers, wherever in the model they stand.

    It does so for adapters made before experts were stacked. Dense and shared feed-forwards of such models carry the
    same names: named as modules, they would silently go without an adapter and the router would get one.
    """
    from peft.utils import transformers_weight_conversion as conversion

    patterns: Mapping[str, str] = conversion._MODEL_TO_CONVERSION_PATTERN  # pyright: ignore[reportPrivateImportUsage]
    family = patterns.get(model.config.model_type, "")
    return frozenset(conversion._MOE_TARGET_MODULE_MAPPING.get(family, ()))
