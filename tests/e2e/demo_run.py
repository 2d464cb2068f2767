"""What a run of the demo leaves for the tests to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Demo:
    """The folder in which `tuneloop demo --json` ran, its result, and what it said to people."""

    folder: Path
    result: dict[str, Any]
    said: str
