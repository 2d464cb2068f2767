"""A tuned run as a model that other tools load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneloop.core.errors import RunError
from tuneloop.core.runs import Run, resolve
from tuneloop.flows import scaled
from tuneloop.flows.contestants import tuned_config
from tuneloop.flows.recipe import load_recipe
from tuneloop.track import console


def merge(name: str, root: Path, out: Path | None, dtype: str | None, scale: float | None = None) -> dict[str, Any]:
    """Merges a run's adapter into its base at `out` (default: out/merged in the run), checked before it counts.

    `scale`: with only this part of its change, from 0 to 1.
    """
    return merge_run(resolve(root, name, stage="tune", done=True), out, dtype, scale)


def merge_run(
    run: Run, out: Path | None = None, dtype: str | None = None, scale: float | None = None
) -> dict[str, Any]:
    """As merge, for a run at hand."""
    import dataclasses

    from tuneloop.models import merge as merging
    from tuneloop.models.find import find_base
    from tuneloop.models.precision import DTYPES

    adapter = run.out / "adapter"
    if run.stage != "tune" or not run.done:
        raise RunError(f"{run.path} is a {run.stage} run ({run.status}); merge takes a finished tune run")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"--out {out} exists already, and merge never overwrites; name a new folder")
    if not adapter.is_dir() and scale is not None:
        if dtype is not None:
            raise RunError(f"--dtype {dtype}: {run.path} holds a whole model, which keeps its dtype")
        target = out or run.out / f"model-{scale:g}"
        scaled.write(run, load_recipe(run.path / "recipe.yaml"), scale, target)
        console.decided("written", f"{target}: the whole model at scale {scale:g}")
        return {"folder": str(target), "check": None}
    if not adapter.is_dir():
        raise RunError(f"{run.path} holds a whole model, nothing to merge: {run.out / 'model'} is ready to use")
    if dtype is not None and dtype not in DTYPES:
        raise RunError(f"--dtype {dtype}: known are {', '.join(DTYPES)}")
    base = find_base(tuned_config(load_recipe(run.path / "recipe.yaml").model, run.path))
    target = out or run.out / ("merged" if scale is None else f"merged-{scale:g}")
    with _scaled(run, adapter, scale) as adapter:
        check = merging.merge(base, adapter, target, dtype=DTYPES[dtype] if dtype else None)
    console.decided("merged", str(target))
    console.decided("checked", str(check))
    return {"folder": str(target), "check": dataclasses.asdict(check)}


@contextmanager
def _scaled(run: Run, adapter: Path, scale: float | None) -> Iterator[Path]:
    """The adapter itself, or at another scale in a folder that is gone afterwards."""
    if scale is None:
        yield adapter
        return
    with TemporaryDirectory() as folder:
        scaled.write(run, load_recipe(run.path / "recipe.yaml"), scale, Path(folder) / "adapter")
        yield Path(folder) / "adapter"
