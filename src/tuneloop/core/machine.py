"""What this process may use of the machine, and of its time."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager

RARE_COLLECTIONS = (100_000, 50, 50)
"""Importing torch and transformers makes a million objects that stay; looking for circles among them again and again
takes a fifth of the start, and of the preparation of rows."""


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


@contextmanager
def rare_collector() -> Generator[None]:
    """For work that makes many objects and few circles, such as exceptions with their frames."""
    before = gc.get_threshold()
    gc.set_threshold(*RARE_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
