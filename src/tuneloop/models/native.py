"""C files of the package, compiled for this CPU at the user's place where a gcc is at hand, and loaded.

Each is compiled once for a machine and kept in the cache folder. Who loads one compares what it computes with the form
that needs no compiler, before use, and takes that form where there is none. Knows nothing of what the files compute.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tuneloop.core import digest
from tuneloop.models.cache import building, make_room, root

HEADER = Path(__file__).with_name("numbers.h")
"""What all of them may include."""
FLAGS = (
    "-O3", "-march=native", "-shared", "-fPIC",
    # sums in any order, so that vectors can be used; infinities and not-a-numbers keep their meaning
    "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros",
    *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []),
)  # fmt: skip
COMPILING = 60.0
"""Seconds after which a compiler is given up."""
KEPT = 16 << 20
"""Bytes of compiled files that stay in the cache folder."""


class Unbuilt(Exception):
    """Why nothing is compiled, for people."""


def load(
    source: Path, definitions: Sequence[str] = (), *, threads: bool = False, of_python: bool = False
) -> ctypes.CDLL:
    """The file's functions; `definitions` are the preprocessor's. Raises Unbuilt.

    `threads`: it uses OpenMP, which must be the library that PyTorch brought: a second pool of threads slows both.
    `of_python`: it calls functions of Python, and so must be called with Python's lock held; errors are raised.
    """
    if sys.platform != "linux":
        raise Unbuilt("nothing is compiled for this system")
    if threads and not _shares_openmp():
        raise Unbuilt("this build of PyTorch brings an OpenMP that gcc does not use")
    path = _built(source, [*FLAGS, *(["-fopenmp"] if threads else []), *(f"-D{one}" for one in definitions)])
    try:
        return (ctypes.PyDLL if of_python else ctypes.CDLL)(str(path))
    except OSError as error:
        raise Unbuilt(f"what was compiled cannot be loaded: {error}") from error


def _built(source: Path, options: list[str]) -> Path:
    """The compiled file. Raises Unbuilt with the compiler's words."""
    compiler = _compiler()
    files = [digest.of_file(file) for file in (source, HEADER)]
    key = digest.of_value([*files, compiler, options, _version(compiler), _cpu()])
    folder = root() / "compiled" / digest.short(key, 32)
    path = folder / f"{source.stem}.so"
    if not path.is_file():
        try:
            with building(folder) as new:
                done = subprocess.run(
                    [compiler, *options, f"-I{HEADER.parent}", str(source), "-o", str(new / path.name), "-lm"],
                    capture_output=True, text=True, timeout=COMPILING, check=False,
                )  # fmt: skip
                if done.returncode:
                    raise Unbuilt(f"{compiler} fails: {done.stderr.strip()[-300:]}")
            make_room(folder.parent, KEPT, folder)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unbuilt(f"cannot compile: {error}") from error
    states = path.stat(), folder.stat()
    if any(state.st_uid not in (0, os.geteuid()) or state.st_mode & 0o022 for state in states):
        raise Unbuilt(f"{path} could have been written by others: remove it")
    return path


def _compiler() -> str:
    """The gcc of $CC or of the path; others bring an OpenMP of their own."""
    for name in (os.environ.get("CC"), "gcc", "cc"):
        path = shutil.which(name) if name else None
        if path is not None and "Free Software Foundation" in _version(path):
            return path
    raise Unbuilt("there is no gcc")


@functools.cache
def _version(compiler: str) -> str:
    try:
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=COMPILING, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout


def _shares_openmp() -> bool:
    """Whether gcc's OpenMP library, libgomp.so.1, is loaded as PyTorch's: a second pool of threads would slow both."""
    return any(line.rstrip().endswith("/libgomp.so.1") for line in Path("/proc/self/maps").read_text().splitlines())


def _cpu() -> list[str]:
    """What `-march=native` looks at: a home directory may be shared by machines of different kinds."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    told = [line for line in lines if line.startswith(("model", "cpu family", "flags", "CPU", "Features", "isa"))]
    return [platform.machine(), *dict.fromkeys(told)]
