"""Tuning methods, one file each: which parameters are trained, and how they are saved."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tuneloop.core.plugins import Family, Plugin

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Plugin):
    """Turns a loaded model into one with trainable parameters. Whatever it leaves without gradient stays as it is."""

    adapter: ClassVar[bool]
    """Whether the result is an adapter beside the base (True) or a whole model (False)."""

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> Any:
        """The model to train: `requires_grad` is set on exactly the parameters that the method trains."""


FAMILY: Family[Method] = Family("methods", __name__, Method)
MethodChoice = Annotated[Method, FAMILY]
