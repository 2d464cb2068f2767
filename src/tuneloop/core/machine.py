"""What this process may use of the machine, and how often Python looks for garbage."""

from __future__ import annotations

import atexit
import gc
import os

LIBRARIES_COME, LIBRARIES_ARE_HERE = (1_000_000, 50, 50), (100_000, 50, 50)
"""The collector's thresholds. Importing torch, transformers and peft makes some 700,000 objects that stay; to
look for circles among them took a tenth of the start, at Python's own thresholds a fifth."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin() -> None:
    """For a process that is a command of ours: no look for garbage while libraries are imported, once a process; nor
    at the end, where Python would look through all of them again before it gives back everything anyway."""
    if not gc.get_freeze_count():
        gc.set_threshold(*LIBRARIES_COME)
        atexit.register(gc.freeze)


def libraries_are_here() -> None:
    """What is in memory by now stays, and the collector never looks at it again; of what comes it frees the circles.

    Only after `begin`: in other people's processes the collector is theirs.
    """
    if gc.get_threshold() == LIBRARIES_COME:
        gc.freeze()
        gc.set_threshold(*LIBRARIES_ARE_HERE)
