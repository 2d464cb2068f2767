"""Tuning methods, one file each: which parameters are trained, and how they are saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tuneloop.core.plugins import Family, Plugin

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tuneloop.models.quantize import Quantization


@dataclass(frozen=True)
class Setting:
    """What a method may look at, beside the model, before the first step; the same again when a run is continued."""

    tokenizer: PreTrainedTokenizerBase
    seed: int
    gradients: Callable[[int], Iterable[dict[str, Tensor]]]
    """Of so many training rows, spread over all, one by one: the gradient of each row's loss by parameter name. Only
    parameters with `requires_grad` have one."""


class Method(Plugin):
    """Turns a loaded model into one with trainable parameters. Whatever it leaves without gradient stays as it is."""

    adapter: ClassVar[bool]
    """Whether the result is an adapter beside the base (True) or a whole model (False)."""
    mergeable: ClassVar[bool] = True
    """Whether an adapter can become part of the base's weights."""
    continued: ClassVar[Mapping[str, str]] = {}
    """Options that an adapter must agree in to be trained further: name here → name in adapter_config.json. Names and
    shapes of what is trained are compared in any case."""

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> Any:
        """The model to train: `requires_grad` is set on exactly the parameters that the method trains.

        Works on the meta device too, where parameters are only counted.
        """

    @property
    def quantization(self) -> Quantization | None:
        """How the base's weights are held while it is frozen; None: as they are."""
        return None

    @property
    def restores_base(self) -> bool:
        """Whether the base is there again when the adapter is switched off."""
        return self.adapter

    def initialise(self, model: Any, setting: Setting) -> None:
        """Sets first values that depend on tokenizer, data or seed; `model` is what `apply` gave."""

    def entries(self, model: Any, setting: Setting) -> Mapping[str, Tensor]:
        """Of parameters of which only some entries are trained: their places in the flattened parameter, int64 [K].

        Asked once after `initialise`; a continued run takes the places from its checkpoint.
        """
        return {}

    def count(self, model: Any) -> int:
        """How many numbers are trained; `model` is what `apply` gave, on the meta device too."""
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    def words(self, model: Any) -> str:
        """What is trained, where the method's name does not say it."""
        return ""

    def finish(self, model: Any) -> None:
        """After the last step: brings the trained parameters into the form that is saved; the function stays equal."""

    def rates(self, names: Iterable[str]) -> dict[str, float]:
        """Factors on the learning rate of parameters that learn at another rate than the others."""
        return {}


FAMILY: Family[Method] = Family("methods", __name__, Method)
MethodChoice = Annotated[Method, FAMILY]
