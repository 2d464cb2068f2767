"""Recipes that forget less than a given one: replay, KL to the base, fewer epochs. Nothing is run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneloop.data.config import DataConfig
from tuneloop.flows.recipe import Recipe
from tuneloop.tune.config import TuneConfig

NAMES = ("replay", "keep", "epochs")
REPLAY = 0.2
KEEP = {"weight": 1.0, "rows": 16}
EARLIER = 0.75
"""The best validation before this part of the run says that the rest was too much."""


@dataclass(frozen=True)
class Variant:
    """A recipe and what is different in it."""

    recipe: Recipe
    says: str


def variants(recipe: Recipe, general: str | None, curve: Sequence[tuple[int, float]]) -> dict[str, Variant]:
    """The remedies that this recipe does not have yet, by name; replay and keep need `general` rows.

    `curve`: (step, validation loss), by which the number of epochs is chosen; without one, half of them.
    """
    found: dict[str, Variant] = {}
    if general is not None and recipe.data.mix.replay is None:
        found["replay"] = _replay(recipe, general)
    if general is not None and recipe.tune.objective.keep is None:
        found["keep"] = _keep(recipe, general)
    found["epochs"] = _epochs(recipe, curve)
    return found


def best_part(curve: Sequence[tuple[int, float]]) -> float | None:
    """The part of the run after which the validation loss was lowest; None without a curve."""
    if len(curve) < 2:
        return None
    best = min(curve, key=lambda point: point[1])
    return best[0] / curve[-1][0]


def _replay(recipe: Recipe, general: str) -> Variant:
    data = recipe.data.model_dump(mode="json")
    data["sources"].append({"path": general, "name": "general", "train_only": True})
    data["mix"]["replay"] = {"source": "general", "ratio": REPLAY}
    says = f"data.mix.replay: {{source: general, ratio: {REPLAY:g}}}"
    return Variant(_named(recipe, "replay", data=DataConfig.model_validate(data)), says)


def _keep(recipe: Recipe, general: str) -> Variant:
    tune = recipe.tune.model_dump(mode="json")
    tune["objective"]["keep"] = {"prompts": general, **KEEP}
    says = f"tune.objective.keep: {{weight: {KEEP['weight']:g}, rows: {KEEP['rows']}}}"
    return Variant(_named(recipe, "keep", tune=TuneConfig.model_validate(tune)), says)


def _epochs(recipe: Recipe, curve: Sequence[tuple[int, float]]) -> Variant:
    part = best_part(curve)
    factor = part if part is not None and part < EARLIER else 0.5
    if recipe.tune.steps is not None:
        steps = max(1, round(recipe.tune.steps * factor))
        return Variant(_named(recipe, "epochs", tune=_changed(recipe, steps=steps)), f"tune.steps: {steps}")
    epochs = round(recipe.tune.epochs * factor, 2)
    return Variant(_named(recipe, "epochs", tune=_changed(recipe, epochs=epochs)), f"tune.epochs: {epochs:g}")


def _changed(recipe: Recipe, **values: float) -> TuneConfig:
    return TuneConfig.model_validate({**recipe.tune.model_dump(mode="json"), **values})


def _named(recipe: Recipe, remedy: str, **branches: object) -> Recipe:
    return recipe.model_copy(update={"name": f"{recipe.name}-{remedy}", **branches})
