"""A finished tune run at another scale: asked in memory, or written as a tune run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.core import digest, runs
from tuneloop.core.runs import Run
from tuneloop.evaluate.contestant import Contestant
from tuneloop.flows.contestants import contestant, tuned_config
from tuneloop.flows.recipe import Recipe, load_recipe
from tuneloop.track import console

if TYPE_CHECKING:
    from tuneloop.models.find import Base
    from tuneloop.models.scaling import Scalable
    from tuneloop.render.template import Renderer


@contextmanager
def opened(tuned: Run, recipe: Recipe) -> Iterator[Callable[[float], Contestant]]:
    """The run's model, once loaded, as a contestant at any scale; one at a time."""
    from tuneloop.models.find import find_base

    scalable, base, renderer = _load(tuned, recipe)
    origin = find_base(recipe.model)
    ends = [base.digest, base.config.model_dump(mode="json"), origin.digest, recipe.seed if origin.is_new else None]
    parts = [*ends, renderer.digest(), str(next(scalable.model.parameters()).dtype)]

    def at(scale: float) -> Contestant:
        return contestant(scalable.to(scale), renderer, digest.of_value([*parts, scale]))

    yield at


def scaled_run(tuned: Run, scale: float, root: Path) -> Run:
    """A finished run of stage `tune` with the model at this scale, for chat, evaluate, merge and forgetting alike."""
    recipe = load_recipe(tuned.path / "recipe.yaml")
    inputs = {"tuned": digest.of_value(tuned.record["outputs"]), "scale": f"{scale:g}"}
    key = runs.run_key("tune", {}, inputs)
    known = runs.find(root, key, done=True)
    if known is not None:
        return known
    run = Run.create(root, "tune", f"{recipe.name} scale {scale:g}".replace(".", "p"), key, inputs, recipe)
    of = {"run": tuned.path.name, "scale": scale}
    run.record.update(data=tuned.record["data"], folder=tuned.record["folder"], scaled=of)
    with run, console.logging_to(run.path / "log.txt"):
        name = "adapter" if (tuned.out / "adapter").is_dir() else "model"
        write(tuned, recipe, scale, run.out / name)
        for path in (tuned.out / "summary.json", tuned.path / "metrics.jsonl"):
            shutil.copy(path, run.path / path.relative_to(tuned.path))
    return run


def write(tuned: Run, recipe: Recipe, scale: float, folder: Path) -> None:
    """The run's adapter or model at this scale, in a folder."""
    from tuneloop.models.scaling import save_scaled

    scalable, base, renderer = _load(tuned, recipe)
    scalable.to(scale)
    template = renderer.chat_template
    save_scaled(scalable, base, folder, template if isinstance(template, str) else None, sorted(renderer.stop_ids))


def _load(tuned: Run, recipe: Recipe) -> tuple[Scalable, Base, Renderer]:
    import torch

    from tuneloop.models.find import find_base
    from tuneloop.models.precision import pick_dtype
    from tuneloop.models.scaling import load_scalable
    from tuneloop.render.load import renderer_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = find_base(tuned_config(recipe.model, tuned.path.resolve()))
    dtype, _ = pick_dtype(recipe.model.dtype, device)
    scalable = load_scalable(base, find_base(recipe.model), dtype, seed=recipe.seed, device=device)
    return scalable, base, renderer_of(base)
