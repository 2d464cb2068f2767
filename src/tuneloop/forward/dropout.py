"""A model's own dropout probabilities, set while it is trained: in its config, its layers' values, its modules.

Adapters bring dropout of their own; it is left alone when `Dropouts.of` sees the model before they are put on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tuneloop.core.errors import ModelError

OTHERS = ("classifier", "summary", "layerdrop")
"""Dropout of heads that a language model does not have, and of whole layers."""


@dataclass(frozen=True)
class Dropouts:
    """Where a model keeps its probabilities: (object, name of its attribute, name for people)."""

    places: tuple[tuple[Any, str, str], ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Dropouts:
        """The places of a model. Raises ModelError when it has none."""
        places: list[tuple[Any, str, str]] = []
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                places.append((module, "p", name))
            places += [(module, key, f"{name}.{key}") for key in vars(module) if _is_probability(module, key)]
        if not places:
            raise ModelError(
                f"tune.objective.dropout: {type(model).__name__} has no dropout of its own. Set dropout of the method "
                f"(tune.method.lora.dropout) or noise on the embeddings (tune.objective.neftune) instead"
            )
        # some layers ask the config while they compute, as Falcon's do
        config = model.config
        places += [(config, key, f"config.{key}") for key in vars(config) if _is_probability(config, key)]
        return cls(tuple(places))

    @contextmanager
    def set_to(self, probability: float) -> Iterator[None]:
        """Within it all places have this probability; afterwards their own again, which is what is exported."""
        own = [getattr(holder, key) for holder, key, _ in self.places]
        try:
            for holder, key, _ in self.places:
                setattr(holder, key, probability)
            yield
        finally:
            for (holder, key, _), value in zip(self.places, own, strict=True):
                setattr(holder, key, value)


def _is_probability(holder: Any, key: str) -> bool:
    named = ("dropout" in key or key.endswith("_pdrop")) and not any(other in key for other in OTHERS)
    value = vars(holder)[key]
    return named and isinstance(value, (int, float)) and not isinstance(value, bool)
