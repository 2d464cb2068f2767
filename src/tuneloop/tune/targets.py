"""Which layers of a model an adapter is put beside: what a recipe names → names of modules, on any architecture.

Knows nothing of what is put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import did_you_mean
from tuneloop.models.targets import linear_targets

AUTO = "auto"
OUTER = ("embeddings", "head")
"""Words for the token embeddings and the output head, whatever the architecture calls them."""


def resolve(
    model: PreTrainedModel, wanted: str | Sequence[str], layers: Sequence[int] | None = None, key: str = "targets"
) -> list[str]:
    """Names of the modules that `wanted` means, in the model's order.

    A list holds endings of names, and the words auto (see models.targets), embeddings and head; a text alone is auto or
    a regular expression for whole names. `layers` keeps only those numbers, counted from 0, -1 is the last; embeddings
    and head stay. Raises ModelError, naming what there is, when a part of `wanted` fits nothing.
    """
    known = _adaptable(model)
    outer = outer_names(model)
    found: set[str] = set()
    for part in [wanted] if isinstance(wanted, str) else wanted:
        fitting = linear_targets(model) if part == AUTO else _fitting(part, known, outer, isinstance(wanted, str))
        if not fitting:
            raise ModelError(f"tune.method, {key}: '{part}' fits no layer of this model{_what_there_is(part, known)}")
        found.update(fitting)
    if layers is not None:
        kept = _numbers(known, layers)
        found = {name for name in found if _number(name) in kept or name in outer.values()}
        if not found:
            raise ModelError(f"tune.method, {key}: none of them stands in the layers {list(layers)}")
    return [name for name in known if name in found]


def outer_names(model: PreTrainedModel) -> dict[str, str]:
    """The modules' names of the words in OUTER."""
    modules = {id(module): name for name, module in model.named_modules()}
    outer = zip(OUTER, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True)
    return {word: modules[id(module)] for word, module in outer if id(module) in modules}


def endings(names: Iterable[str]) -> list[str]:
    """The last parts of names, each once."""
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names))


def _adaptable(model: PreTrainedModel) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D | nn.Embedding)]


def _fitting(part: str, known: Sequence[str], outer: dict[str, str], regex: bool) -> list[str]:
    if part in outer:
        return [outer[part]]
    if regex:
        try:
            return [name for name in known if re.fullmatch(part, name)]
        except re.error as error:
            raise ModelError(f"tune.method, targets: '{part}' is no regular expression ({error})") from error
    return [name for name in known if name == part or name.endswith(f".{part}")]


def _what_there_is(part: str, known: Sequence[str]) -> str:
    there = endings(name for name in known if _number(name) is not None)
    return f"{did_you_mean(part, there)}; layers to adapt are {', '.join(there)}, and the words auto, embeddings, head"


def _number(name: str) -> int | None:
    """The number of the decoder layer that a module stands in: the first in its name (a second one is an expert's)."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _numbers(known: Sequence[str], layers: Sequence[int]) -> set[int]:
    count = 1 + max(number for number in map(_number, known) if number is not None)
    for number in layers:
        if not -count <= number < count:
            raise ModelError(f"tune.method, layers: there is no layer {number}, only 0 to {count - 1}")
    return {number % count for number in layers}
