"""The run folder: the interface between stages, readable by people and programs.

Status is stated in run.json, never guessed; DONE is written last; one process at a time holds a run.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import platform
import shutil
import traceback
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, cast

from tuneloop import __version__
from tuneloop.core import digest, jsonl, recipe
from tuneloop.core.errors import RunError, TuneloopError
from tuneloop.core.plugins import Branch

RECORDED = ("torch", "transformers", "tokenizers", "accelerate", "peft", "safetensors", "numpy")


class Run:
    """A run folder. As a context manager it holds the folder's lock and states how the work ended."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record
        self._lock: IO[str] | None = None

    # -- making and finding -------------------------------------------------------------------------------------------
    @classmethod
    def create(cls, root: Path, stage: str, name: str, key: str, inputs: Mapping[str, Any], config: Branch) -> Run:
        """A new folder `<root>/<time>-<stage>-<name>-<key>`; `inputs` are paths and digests, `config` the recipe."""
        stem = f"{datetime.now():%Y%m%d-%H%M}-{stage}-{_slug(name)}-{digest.short(key, 4)}"
        path = _new_folder(root, stem)
        (path / "out").mkdir()
        jsonl.write_text(path / "recipe.yaml", recipe.dump(config))
        run = cls(path, {
            "version": 1, "stage": stage, "name": name, "status": "created", "key": key, "created": _now(),
            "folder": str(Path.cwd()), "versions": dict(versions()), "inputs": dict(inputs), "outputs": {},
            "error": None,
        })  # fmt: skip
        run._write()
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run. Raises RunError when there is none at `path`."""
        if not (path / "run.json").is_file():
            raise RunError(f"{path}: not a run folder (no run.json). `tuneloop runs list` shows the runs.")
        record = jsonl.read(path / "run.json")
        if not isinstance(record, dict) or "stage" not in record:
            raise RunError(f"{path}/run.json: not the record of a run")
        return cls(path, cast("dict[str, Any]", record))

    # -- facts --------------------------------------------------------------------------------------------------------
    @property
    def out(self) -> Path:
        return self.path / "out"

    @property
    def stage(self) -> str:
        return self.record["stage"]

    @property
    def status(self) -> str:
        """created, running, interrupted, failed or done; a run that was killed while running is interrupted."""
        stated: str = self.record["status"]
        return "interrupted" if stated == "running" and not _is_held(self.path) else stated

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    # -- holding ------------------------------------------------------------------------------------------------------
    def __enter__(self) -> Run:
        self._lock = _lock(self.path)
        self.record.update(status="running", started=_now(), error=None, versions=dict(versions()), pid=os.getpid())
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            files = {str(path.relative_to(self.out)): path for path in sorted(self.out.rglob("*")) if path.is_file()}
            self.record["outputs"] = {
                name: digest.of_file(path)
                for name, path in files.items()
                if not name.startswith(("checkpoints/", "."))  # a leading dot: what a killed process had not finished
            }
            self.record.update(status="done", finished=_now())
            self._write()
            jsonl.write_text(self.path / "DONE", _now() + "\n")
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            message = str(error) if isinstance(error, TuneloopError) else "".join(traceback.format_exception(error))
            self.record.update(
                status="interrupted" if stopped else "failed", finished=_now(), error="^C" if stopped else message
            )
            with contextlib.suppress(OSError):  # a full disk must not hide the error that it caused
                self._write()
        assert self._lock is not None
        self._lock.close()
        self._lock = None

    def _write(self) -> None:
        jsonl.write(self.path / "run.json", self.record)


def run_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What makes a run the same run: its stage, its branch of the recipe, the digests of its inputs, our version."""
    return digest.of_value({"stage": stage, "config": config, "inputs": inputs, "tuneloop": __version__})


def all_runs(root: Path) -> list[Run]:
    """All runs below `root`, oldest first."""
    found = [Run.open(path.parent) for path in root.glob("*/run.json")]
    return sorted(found, key=lambda run: (datetime.fromisoformat(run.record["created"]), run.path.name))


def find(root: Path, key: str, *, done: bool) -> Run | None:
    """The newest run of that key that is finished, or (done=False) that can be resumed."""
    matching = [run for run in all_runs(root) if run.record.get("key") == key and run.done == done]
    return matching[-1] if matching else None


def resolve(root: Path, name: str, *, stage: str | None = None, done: bool | None = None) -> Run:
    """A run by path, by folder name or by an unambiguous part of the name, below `root`; `latest` is the newest.

    `stage` and `done` choose where a name fits several runs; of these, the one that has just this name. A name that
    fits one is taken as it is.
    """
    if (Path(name) / "run.json").is_file():
        return Run.open(Path(name))
    known = all_runs(root)
    matching = [run for run in known if name == "latest" or name in run.path.name]
    fitting = [run for run in matching if stage in (None, run.stage) and done in (None, run.done)]
    if name == "latest":
        matching = fitting = fitting[-1:]
    named = [run for run in fitting if run.record.get("name") == name]  # `sums`, where there is `sums-replay` too
    for candidates in ([run for run in known if run.path.name == name], matching, fitting, named):
        if len(candidates) == 1:
            return candidates[0]
    state = {None: "", True: "finished ", False: "unfinished "}[done]
    what = f"{state}{stage} run" if stage else f"{state}run"
    if not matching:
        wanted = f"no {what}" if name == "latest" else f"no run '{name}'"
        raise RunError(f"{wanted} in {root}/. `tuneloop runs list` shows what is there.")
    shown = fitting or matching
    names = ", ".join(run.path.name for run in shown[-6:])
    raise RunError(f"'{name}' fits {len(shown)} runs in {root}/; name one: {'… ' if len(shown) > 6 else ''}{names}")


def remove(run: Run) -> None:
    """Deletes a run folder that no process holds."""
    with _lock(run.path):
        shutil.rmtree(run.path)


@cache  # packages do not change under a process; reading their metadata takes 20 ms
def versions() -> Mapping[str, str]:
    """The versions that a result depends on, without importing the packages."""
    found = {"tuneloop": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MappingProxyType(found)


def _is_held(path: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with (path / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(path: Path) -> IO[str]:
    handle = (path / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise RunError(f"{path}: another process is using this run; wait for it or stop it") from error
    return handle


def _new_folder(root: Path, stem: str) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"{root} cannot hold runs: {error.filename} is a file, not a folder") from error
    for number in range(1, 1000):
        path = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise RunError(f"{root}/{stem}: a thousand runs of that name exist; `tuneloop runs clean` removes old ones")


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())[:40] or "run"


def _now() -> str:
    """Local time with its offset; milliseconds keep the order of runs that one command makes."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
