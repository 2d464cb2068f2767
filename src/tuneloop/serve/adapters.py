"""Public names of models, each an alias of what the engine has loaded under a name unique to its content.

A name is moved in one step: load the new under its own name, flip the alias, let answers of the old end, drop it. An
adapter is never changed in place: peft's hotswap and prefix caches keyed by name serve stale or foreign weights.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tuneloop.core import digest
from tuneloop.core.errors import RunError
from tuneloop.core.runs import Run
from tuneloop.generate.live import LiveEngine, Served
from tuneloop.models.cache import adapter_digest

PUBLIC = re.compile(r"[\w.:@/-]{1,128}", re.ASCII)
RUN = re.compile(r"[\w][\w.-]{0,199}", re.ASCII)


class UnknownModel(KeyError):
    """No model of that public name."""


class Gate(Protocol):
    """What adapters must pass before they are loaded. All methods may be called from any thread."""

    def pass_adapter(self, adapter: Path) -> None:
        """Returns for one that may be loaded, after a long time perhaps. Raises ModelError for another."""
        ...

    def stop(self) -> None:
        """Ends what is under way; nothing passes any more. A signal handler calls it: no waiting, no locks."""
        ...


class Roster:
    """The models that clients can ask for. All methods may be called from any thread."""

    def __init__(
        self,
        engine: LiveEngine,
        name: str,
        loaded: str | None = None,
        gate: Gate | None = None,
    ) -> None:
        """`name`: public name of the model that the engine was started with, `loaded` its name there."""
        self._engine, self._gate = engine, gate
        self._base = name
        self._aliases = {name: loaded or engine.models()[0].name}
        self._flipping = threading.Lock()  # held for moments: between a choice and its `submit` no name may move
        self._changing = threading.Lock()  # held for as long as loading and draining take: one change at a time

    @contextmanager
    def choosing(self, name: str) -> Iterator[Served]:
        """What a public name stands for; as long as the block lasts, it is not unloaded. Raises UnknownModel."""
        with self._flipping:
            loaded = self._aliases.get(name)
            served = next((one for one in self._engine.models() if one.name == loaded), None)
            if served is None:
                raise UnknownModel(name)
            yield served

    def listed(self) -> Mapping[str, Served]:
        """All public names with what they stand for."""
        with self._flipping:
            loaded = {served.name: served for served in self._engine.models()}
            return {name: loaded[alias] for name, alias in self._aliases.items() if alias in loaded}

    def put(self, name: str, folder: Path) -> Served:
        """Lets a public name stand for an adapter; what it stood for before ends its answers and is dropped.

        Returns when the old is gone. Raises RunError for a name that cannot be taken, ModelError for the adapter.
        """
        if not PUBLIC.fullmatch(name):
            raise RunError(f"'{name[:80]}' cannot be a model's name: letters, digits and . _ : @ / - only, at most 128")
        if name == self._base:
            raise RunError(f"'{name}' is the name of the model itself; give the adapter another name")
        loaded = f"ad-{digest.short(adapter_digest(folder))}"
        with self._changing:
            known = {served.name: served for served in self._engine.models()}
            if loaded not in known and self._gate is not None:
                self._gate.pass_adapter(folder)
            served = known[loaded] if loaded in known else self._engine.load(loaded, str(folder))
            with self._flipping:
                old = self._aliases.get(name)
                self._aliases[name] = loaded
            self._drop(old)
        return served

    def stop(self) -> None:
        """As `Gate.stop`."""
        if self._gate is not None:
            self._gate.stop()

    def remove(self, name: str) -> None:
        """Takes a public name away; returns when the answers under way are over. Raises UnknownModel, or RunError."""
        if name == self._base:
            raise RunError(f"'{name}' is the model itself; it cannot be removed")
        with self._changing:
            with self._flipping:
                if name not in self._aliases:
                    raise UnknownModel(name)
                old = self._aliases.pop(name)
            self._drop(old)

    def _drop(self, loaded: str | None) -> None:
        """Unloads what no public name stands for any more."""
        if loaded is not None and loaded not in self._aliases.values():
            self._engine.unload(loaded)


def adapter_of(root: Path, run: str) -> Path:
    """The adapter that a finished tune run made. `run` is the id of a run, never a path. Raises RunError.

    The same refusal for what is not there and for what may not be reached: clients learn nothing about the machine.
    """
    folder = root / run
    missing = RunError(f"no finished tune run '{run[:80]}' with an adapter among the runs")
    if not RUN.fullmatch(run) or folder.is_symlink() or not (folder / "DONE").is_file():
        raise missing
    adapter = (folder / "out" / "adapter").resolve()
    if not adapter.is_relative_to(root.resolve()) or not (adapter / "adapter_config.json").is_file():
        raise missing
    if Run.open(folder).stage != "tune":
        raise missing
    return adapter
