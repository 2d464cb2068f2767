"""Virtual environments of those that are compared: each has one of its own, made with pip on first use."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rival:
    """What to install, and which of our steps it does. `bare` packages come without their dependencies, most of which
    (streamlit, uv, …) no step here needs; `without` are taken out again."""

    does: str
    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def python_of(name: str, rival: Rival, work: Path) -> str:
    """The Python of a rival's environment; made on first use, and anew for other packages."""
    folder = work / f"env-{name}"
    python, ready = folder / "bin" / "python", folder / "READY"
    if not ready.exists() or ready.read_text() != str(rival.packages):
        print(f"making the environment of {name} …", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", *rival.packages], check=True, stdout=sys.stderr)
        if rival.bare:
            subprocess.run([*pip, "install", "--quiet", "--no-deps", *rival.bare], check=True, stdout=sys.stderr)
        if rival.without:
            subprocess.run([*pip, "uninstall", "--quiet", "--yes", *rival.without], check=True, stdout=sys.stderr)
        ready.write_text(str(rival.packages))
    return str(python)
