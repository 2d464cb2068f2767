"""The whole recipe: the branches of the rooms put together into one typed tree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from tuneloop.core import recipe as loading
from tuneloop.core.plugins import Branch
from tuneloop.data.config import DataConfig
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.during import measured
from tuneloop.models.config import ModelConfig
from tuneloop.serve.config import ServeConfig
from tuneloop.track.config import TrackConfig
from tuneloop.tune.config import TuneConfig


class Recipe(Branch):
    """One tuning project: defaults < recipe file < --set."""

    name: str = Field("run", min_length=1)
    """Names the run folders."""
    seed: int = Field(42, ge=0)
    """Seed of splits, shuffles, new weights and dropout."""
    model: ModelConfig = ModelConfig()
    """The base model."""
    data: DataConfig
    """Where the examples come from and how they are cleaned and split."""
    tune: TuneConfig = TuneConfig()
    """How the model is tuned."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What is measured on the test rows, base and tuned side by side."""
    track: TrackConfig = TrackConfig()
    """Where the curves of training are shown."""
    serve: ServeConfig = ServeConfig()
    """How the tuned model is served (`tuneloop serve`)."""

    @model_validator(mode="after")
    def _metrics_of_training_are_known(self) -> Self:
        measured(self.evaluate, self.tune.validation.metrics, self.tune.stop_metric)
        return self


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Reads, overrides and checks a recipe. Raises RecipeError with all problems at once."""
    return loading.load(Recipe, loading.read_yaml(path), settings)
