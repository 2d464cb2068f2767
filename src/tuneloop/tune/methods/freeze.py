"""Partial tuning: the upper layers are trained, the lower ones stay frozen and cost no backward pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Freeze(Method):
    """Trains whole layers and leaves the rest as it is; the result is a whole model."""

    adapter: ClassVar[bool] = False

    layers: Annotated[int, Field(ge=0)] | list[int] = 2
    """A number: so many of the last layers. A list: these layers, counted from 0, -1 is the last."""
    names: list[str] = Field([])
    """Regular expressions: parameters whose name one of them finds are trained too, e.g. `layers\\.3\\.mlp`."""
    embeddings: bool = False
    """Train the token (and position) embeddings. Everything above them then needs a backward pass."""
    head: bool = False
    """Train the output head. Where it is tied to the embeddings, both must be on."""
    norm: bool = False
    """Train the last normalisation before the head."""

    @field_validator("names")
    @classmethod
    def _compiles(cls, names: list[str]) -> list[str]:
        for name in names:
            try:
                re.compile(name)
            except re.error as error:
                raise ValueError(f"'{name}' is no regular expression: {error}") from error
        return names

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        from tuneloop.core.errors import ModelError
        from tuneloop.models import blocks

        model.requires_grad_(False)
        chosen = {*self._numbers(len(blocks.blocks_of(model)[1])), *self._outer(blocks.tied(model))}
        unused = dict.fromkeys(self.names)
        for name, parameter, part in blocks.parts(model):
            found = [pattern for pattern in self.names if re.search(pattern, name)]
            for pattern in found:
                unused.pop(pattern, None)
            parameter.requires_grad_(part in chosen or bool(found))
        if unused:
            raise ModelError(f"tune.method.freeze.names: '{next(iter(unused))}' finds no parameter of this model")
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelError("tune.method.freeze trains nothing: give layers, names, embeddings, head or norm")
        return model

    def words(self, model: PreTrainedModel) -> str:
        from tuneloop.models import blocks

        trained = {part for _, parameter, part in blocks.parts(model) if parameter.requires_grad}
        numbers = sorted(part for part in trained if isinstance(part, int))
        named = sorted(part for part in trained if isinstance(part, str))
        count = len(blocks.blocks_of(model)[1])
        layers = [f"layers {', '.join(map(str, numbers))} of 0–{count - 1}"] if numbers else []
        return f"trained: {', '.join([*layers, *named])}; all below the lowest of them needs no backward pass"

    def _numbers(self, count: int) -> list[int]:
        from tuneloop.core.errors import ModelError

        wanted = self.layers
        if isinstance(wanted, int):
            if wanted > count:
                raise ModelError(f"tune.method.freeze.layers is {wanted}, but the model has only {count}")
            return list(range(count - wanted, count))
        for number in wanted:
            if not -count <= number < count:
                raise ModelError(f"tune.method.freeze.layers: there is no layer {number}, only 0 to {count - 1}")
        return [number % count for number in wanted]

    def _outer(self, tied: bool) -> list[str]:
        from tuneloop.core.errors import ModelError

        if tied and self.embeddings != self.head:
            on, off = ("embeddings", "head") if self.embeddings else ("head", "embeddings")
            raise ModelError(
                f"tune.method.freeze.{on} is on and {off} is off, but this model's head and embeddings are one tensor: "
                f"turn both on or both off"
            )
        return [part for part in ("embeddings", "head", "norm") if getattr(self, part)]
