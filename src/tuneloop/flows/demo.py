"""The demo: the main job on the embedded base and the small dataset that ships with the package."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tuneloop.core import recipe as loading
from tuneloop.flows import lifecycle
from tuneloop.flows.export import merge_run
from tuneloop.flows.recipe import Recipe
from tuneloop.track import console


def demo(settings: Sequence[str], root: Path, again: bool) -> dict[str, Any]:
    """prepare → tune → evaluate → merge → report; nothing is downloaded."""
    started = time.perf_counter()
    with resources.as_file(resources.files("tuneloop.flows") / "demo_data") as folder:
        job = lifecycle.Job(loading.load(Recipe, loading.read_yaml(folder / "recipe.yaml"), settings), root, again)
        prepared = lifecycle.prepare(job)
        tuned = lifecycle.tune(job, prepared)
        evaluated = lifecycle.evaluate(job, prepared, tuned)
    result = lifecycle.result(prepared, tuned, evaluated)
    method = job.recipe.tune.method
    if method.adapter and method.mergeable:
        result["merged"] = merge_run(tuned)["folder"]
    lifecycle.show(evaluated)
    console.say(f"\nall of it took {time.perf_counter() - started:.0f} s; next:")
    for command in lifecycle.next_commands(evaluated, tuned):
        console.say(f"  [cyan]{command}[/]")
    return result
