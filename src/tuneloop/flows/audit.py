"""The data card of a recipe, or of files as they are, on the terminal and as a page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from tuneloop.core import jsonl
from tuneloop.core import recipe as loading
from tuneloop.core.errors import DataError
from tuneloop.data.prepare import is_said
from tuneloop.flows import lifecycle
from tuneloop.flows.recipe import Recipe, load_recipe
from tuneloop.track import console

COLOURS = {"ERROR": "bold red", "WARN": "yellow", "INFO": "dim"}


def audit(inputs: Sequence[Path], base: str, settings: Sequence[str], root: Path, again: bool) -> dict[str, Any]:
    """Prepares the data where that was not done, says the findings, and names the page. `inputs`: a recipe or files."""
    recipes = [path for path in inputs if path.suffix in (".yaml", ".yml")]
    if recipes and len(inputs) > 1:
        raise DataError("give one recipe, or data files, not both: a recipe names its files itself")
    recipe = load_recipe(recipes[0], settings) if recipes else _of_files(inputs, base, settings)
    begun = time.time()
    run = lifecycle.prepare(lifecycle.Job(recipe, root, again))
    card = jsonl.read(run.out / "card.json")
    is_old = (run.path / "DONE").stat().st_mtime < begun  # else `prepare` has just said some
    for found in (one for one in card["findings"] if is_old or not is_said(one)):
        head = (f"{found['level']:<6}", COLOURS[found["level"]])
        console.say(Text.assemble(head, (f"{found['code']}  ", "bold"), found["message"]))
    console.decided("card", str(run.out / "card.html"))
    return {"run": str(run.path), "card": card}


def _of_files(files: Sequence[Path], base: str, settings: Sequence[str]) -> Recipe:
    value = {
        "name": files[0].stem,
        "model": {"base": base},
        "data": {"sources": [{"path": str(path)} for path in files]},
    }
    return loading.load(Recipe, loading.Source("the command line", value), settings)
