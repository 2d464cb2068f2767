"""What the low-rank methods share: options, and the peft configuration that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tuneloop.core.errors import ModelError
from tuneloop.tune.methods import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rank = Annotated[int, Field(ge=1)]
Alpha = Annotated[float, Field(gt=0)]


class LowRank(Method):
    """W + scale · B·A with A, B trained and W frozen; the result is an adapter in peft's format."""

    adapter: ClassVar[bool] = True
    continued: ClassVar[Mapping[str, str]] = {
        "rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "use_dora": "use_dora",
        "alpha_pattern": "alpha_pattern",
    }  # fmt: skip
    use_dora: ClassVar[bool] = False

    rank: Rank = 16
    """Rank of the update."""
    alpha: Alpha = 32
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the update's input."""
    targets: str | list[str] = "auto"
    """Layers to adapt. A list of names (endings), of which `auto` is every linear layer but the head, `embeddings` and
    `head` these two; or one regular expression for whole names."""
    layers: list[int] | None = None
    """Adapt only these decoder layers, counted from 0; -1 is the last."""
    experts: bool = False
    """Adapt the stacked experts of a mixture-of-experts model too, each with an update of its own of this rank."""
    rslora: bool = False
    """Scale by alpha / √rank, so that large ranks learn as fast as small ones (arXiv 2312.03732)."""
    plus_ratio: float = Field(1.0, gt=0)
    """LoRA+: learning rate of B as a multiple of that of A (arXiv 2402.12354); 1: equal, the paper takes 16."""
    init: str = Field("kaiming", pattern=r"^(kaiming|gaussian|orthogonal|olora|pissa(_niter_\d+)?)$")
    """First values: kaiming or gaussian (B is 0), orthogonal (B·A is 0), or a part of the base's own weights: pissa
    (largest singular values), pissa_niter_N (the same, approximated in N iterations, much faster), olora."""
    modules_to_save: list[str] = Field([])
    """Modules trained whole beside the update and saved with it: names (endings), `embeddings`, `head`."""
    rank_pattern: dict[str, Rank] = Field({})
    """Another rank for some layers, by the ending of their name or a regular expression for it."""
    alpha_pattern: dict[str, Alpha] = Field({})
    """Another alpha for some layers, likewise."""

    def apply(self, model: PreTrainedModel) -> Any:
        from peft import LoraConfig, TaskType, get_peft_model

        from tuneloop.models.adapted import put_right
        from tuneloop.models.targets import for_peft
        from tuneloop.tune import principal
        from tuneloop.tune.targets import resolve

        saved = self._modules_to_save(model)
        targets = [name for name in resolve(model, self.targets, self.layers) if name not in saved]
        chosen: dict[str, Any] = for_peft(model, targets, experts=self.experts)
        if chosen["target_parameters"]:
            self._check_plain(model, chosen["target_modules"])
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft says int and computes with floats
            lora_dropout=self.dropout,
            **chosen,
            modules_to_save=saved or None,
            use_rslora=self.rslora,
            use_dora=self.use_dora,
            init_lora_weights=self.init if self.init in ("gaussian", "orthogonal") else True,  # type: ignore[arg-type]
            rank_pattern=self._pattern(self.rank_pattern, "rank_pattern", targets),
            alpha_pattern=self._pattern(self.alpha_pattern, "alpha_pattern", targets),
        )
        # the adapter keeps the model's dtype: tune/optimizer.py holds float32 masters of whatever is trained
        adapted = put_right(get_peft_model(model, config, autocast_adapter_dtype=False), model.dtype)
        if self._starts_from_base:
            principal.start(adapted, self.init)
        return adapted

    def _check_plain(self, model: PreTrainedModel, plain: list[str]) -> None:
        """peft adapts whole parameters (stacked experts, feed-forwards beside them) in the plainest form only."""
        for option, used in (("dropout", self.dropout), ("init", self._starts_from_base), ("DoRA", self.use_dora)):
            if used:
                raise ModelError(
                    f"tune.method: {option} cannot be had for the feed-forwards of {type(model).__name__}; use plain "
                    f"lora without it, or adapt the other layers only: targets: [{', '.join(plain)}]"
                )

    def finish(self, model: Any) -> None:
        from tuneloop.tune import principal

        if self._starts_from_base:
            principal.finish(model)

    def rates(self, names: Iterable[str]) -> dict[str, float]:
        # an embedding's factors are named the other way round: there A is the one that starts at 0
        return {name: self.plus_ratio for name in names if ".lora_B." in name or ".lora_embedding_A." in name}

    @property
    def restores_base(self) -> bool:
        return not self._starts_from_base

    @property
    def _starts_from_base(self) -> bool:
        return self.init not in ("kaiming", "gaussian", "orthogonal")

    def _modules_to_save(self, model: PreTrainedModel) -> list[str]:
        from tuneloop.tune.targets import outer_names

        outer, modules = outer_names(model), dict(model.named_modules())
        names = [outer.get(name, name) for name in self.modules_to_save]
        for name in names:
            if not any(module == name or module.endswith(f".{name}") for module in modules):
                raise ModelError(f"tune.method, modules_to_save: this model has no module '{name}'")
        return names

    def _pattern(self, pattern: dict[str, Any], key: str, targets: list[str]) -> dict[str, Any]:
        from peft.utils.other import get_pattern_key

        used = {get_pattern_key(list(pattern), target) for target in targets}
        unused = [name for name in pattern if name not in used]
        if unused:
            raise ModelError(f"tune.method, {key}: '{unused[0]}' fits none of the {len(targets)} adapted layers")
        return dict(pattern)
