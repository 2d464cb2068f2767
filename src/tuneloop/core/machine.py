"""What this process may use of the machine, and of its time."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def without_collector() -> Generator[None]:
    """Rows hold no circles, but Python would look for some among all of them again and again: up to a third of
    the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
