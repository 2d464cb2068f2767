"""Several LoRA adapters on one model at once, each for the tokens that it is meant for; knows nothing of requests.

peft keeps which adapter is active as state of the model, and finds names by substring: with threads or names such as
`v1` and `v10` answers come from the wrong adapter. Here adapters are tensors under exact names, and every forward pass
is told which tokens belong to which.
Shapes: T tokens of a pass, I inputs, O outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tuneloop.core.errors import ModelError
from tuneloop.models.adapters import PREFIX, WEIGHTS, check_belongs, check_folder, shapes
from tuneloop.models.fewer_bits import Int4Groups
from tuneloop.models.find import Base

BEYOND = ("use_dora", "modules_to_save", "target_parameters", "lora_bias", "layer_replication")
"""Options of LoRA with which an adapter is more than low-rank products in linear layers."""
HALVES = {".lora_A.weight": 0, ".lora_B.weight": 1}
Routes = Mapping[str, Tensor | None]
"""Adapter → places of its tokens in the pass (its rows, where a pass keeps rows apart); None: all of them."""


@dataclass(frozen=True)
class _Part:
    """An adapter in one layer."""

    a_rI: Tensor
    b_Or: Tensor
    scale: float


class MixedAdapters:
    """The adapters on a model. Not thread-safe: the thread that runs the model also adds and removes."""

    def __init__(self, model: PreTrainedModel, base: Base) -> None:
        self._model, self._base = model, base
        self._modules: dict[str, nn.Module] = dict(model.named_modules())
        self._parts: dict[nn.Module, dict[str, _Part]] = {}
        self._routes: Routes = {}

    def add(self, name: str, folder: Path) -> None:
        """Puts the adapter of a folder on the model. Raises ModelError where it does not fit or cannot be mixed."""
        check_belongs(folder, self._base)
        config = check_folder(folder)
        _refuse_unmixable(config, folder)
        shapes(folder)  # refuses values that are not finite
        halves: dict[str, list[Tensor | None]] = {}
        for key, tensor in load_file(folder / WEIGHTS, device=str(self._model.device)).items():
            ending = next((ending for ending in HALVES if key.endswith(ending)), None)
            if ending is None:
                raise ModelError(f"adapter {folder}: {key} is no part of a plain LoRA; {_ADVICE}")
            path = key.removeprefix(PREFIX).removesuffix(ending)
            halves.setdefault(path, [None, None])[HALVES[ending]] = tensor.to(self._model.dtype)
        for path, (a_rI, b_Or) in halves.items():
            module = self._modules.get(path)
            if module is None or a_rI is None or b_Or is None or not _fits(module, a_rI, b_Or):
                raise ModelError(f"adapter {folder} does not fit '{self._base.name}': {path} has no such layer")
            if module not in self._parts:
                self._parts[module] = {}
                module.register_forward_hook(partial(self._add_delta, self._parts[module]))
            self._parts[module][name] = _Part(a_rI, b_Or, _scale(config, path, a_rI.shape[0]))

    def remove(self, name: str) -> None:
        """Takes an adapter away and frees its tensors."""
        for parts in self._parts.values():
            parts.pop(name, None)

    @contextmanager
    def routed(self, routes: Routes) -> Iterator[None]:
        """Passes inside the block apply each adapter to its tokens; tokens without one see the base alone."""
        self._routes = routes
        try:
            yield
        finally:
            self._routes = {}

    def _add_delta(self, parts: dict[str, _Part], module: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        for name, places in self._routes.items():
            part = parts.get(name)
            if part is None:
                continue
            x = given[0]
            # a packed pass is one row of T tokens, a padded one has its rows in the first dimension
            along = 1 if x.shape[0] == 1 else 0
            chosen = x if places is None else x.index_select(along, places)
            delta = ((chosen @ part.a_rI.t()) * part.scale) @ part.b_Or.t()
            out = out + delta if places is None else out.index_add(along, places, delta)
        return out


def _fits(module: nn.Module, a_rI: Tensor, b_Or: Tensor) -> bool:
    sides = (b_Or.shape[0], a_rI.shape[1])
    if isinstance(module, Int4Groups):
        return sides == (module.out_features, module.in_features) and a_rI.shape[0] == b_Or.shape[1]
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return False
    return tuple(weight.shape) in (sides, sides[::-1]) and a_rI.shape[0] == b_Or.shape[1]  # GPT-2 stores it transposed


_ADVICE = "merge it (`tuneloop merge RUN`) and serve the merged model"


def _refuse_unmixable(config: Mapping[str, Any], folder: Path) -> None:
    """Raises ModelError for what is no sum of the base and a low-rank product."""
    kind = str(config.get("peft_type"))
    odd = [key for key in BEYOND if config.get(key)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if kind != "LORA" or odd:
        what = kind if kind != "LORA" else f"LORA with {', '.join(odd)}"
        raise ModelError(f"adapter {folder} is {what}: only plain LoRA can be served beside others; {_ADVICE}")


def _scale(config: Mapping[str, Any], path: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732)."""
    from peft.utils.other import get_pattern_key

    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), path)) or config["lora_alpha"]
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
