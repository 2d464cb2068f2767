"""One sample: a command in a process of its own, its memory over the whole tree of processes, and when it got going."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

EVERY = 0.02
"""Seconds between two looks at the processes."""
LIMIT = 900
"""Seconds after which a sample counts as failed."""
RATES = """
import json, torch
from tuneloop.models.precision import matmul_rate
kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
print(json.dumps({name: matmul_rate(kind, size=1536) for name, kind in kinds.items()}))
"""


class Failed(Exception):
    """The command did not end well; the message is the last line that it said."""


@dataclass(frozen=True)
class Ran:
    """`started` is a time of the clock, `peak` the most bytes resident at once, `said` the last line of stdout."""

    started: float
    seconds: float
    peak: int
    said: str
    appeared: float | None
    """When the file that was waited for had a first line, by the clock."""
    others: float
    """Share of all cores that went to other processes meanwhile: above a tenth, the figures say little."""


def ran(command: Sequence[str], folder: Path, wait_for: str | None = None) -> Ran:
    """Runs the command inside `folder`. `wait_for` is a pattern below it of a file whose first line is a first step."""
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    peak, appeared, started, busy = 0, None, time.time(), _busy()
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, env=_environment()
        )
        tree = psutil.Process(process.pid)
        try:
            while process.poll() is None:
                peak = max(peak, _resident(tree))
                if wait_for and not appeared and any(path.stat().st_size for path in folder.glob(wait_for)):
                    appeared = time.time()
                if time.time() - started > LIMIT:
                    raise Failed(f"more than {LIMIT} s")
                time.sleep(EVERY)
        finally:
            if process.poll() is None:
                _end(tree)
    if process.returncode:
        raise Failed(f"exit {process.returncode}: {_last_line(err)}")
    seconds = time.time() - started
    others = max(0.0, _busy() - busy) / (seconds * psutil.cpu_count())
    return Ran(started, seconds, peak, _last_line(out), appeared, others)


def machine() -> dict[str, float]:
    """Floating-point operations a second of matrix products, measured now."""
    done = subprocess.run([sys.executable, "-c", RATES], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def about_machine() -> dict[str, Any]:
    """The CPU by name and what of it counts here."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": names[0] if names else "unknown", "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "has": [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
    }  # fmt: skip


def code() -> str:
    """The commit of the tuneloop that is measured."""
    import tuneloop

    command = ["git", "-C", tuneloop.__path__[0], "describe", "--always", "--dirty"]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return found.stdout.strip() or f"version {tuneloop.__version__}"


def _environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
             "TRL_EXPERIMENTAL_SILENCE": "1", "DISABLE_VERSION_CHECK": "1"}  # fmt: skip
    import tuneloop

    return os.environ | quiet | {"PYTHONPATH": str(Path(tuneloop.__path__[0]).parent)}  # ours runs from the checkout


def _resident(tree: psutil.Process) -> int:
    total = 0
    try:
        for process in (tree, *tree.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:  # ended while we looked
        pass
    return total


def _busy() -> float:
    """CPU seconds of all processes of the machine but those that ended here, and this one."""
    times, children = psutil.cpu_times(), psutil.Process().cpu_times()
    own = children.user + children.system + children.children_user + children.children_system
    return sum(times) - times.idle - times.iowait - own


def _end(tree: psutil.Process) -> None:
    for process in (*tree.children(recursive=True), tree):
        process.kill()


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
