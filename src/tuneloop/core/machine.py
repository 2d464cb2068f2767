"""What this process may use of the machine, how often Python looks for garbage, and what becomes of freed memory."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager

LIBRARIES_COME, RARE = (1_000_000, 50, 50), (100_000, 50, 50)
"""The collector's thresholds. Importing torch, transformers and peft makes some 700,000 objects that stay; to
look for circles among them took a tenth of the start, at Python's own thresholds a fifth. Rows stay, too."""

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Names of settings to glibc's mallopt(3)."""


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
        gc.set_threshold(*RARE)


@contextmanager
def rare_collector() -> Generator[None]:
    """For work that makes many objects and few circles, such as exceptions with their frames."""
    before = gc.get_threshold()
    if before[0] < RARE[0]:
        gc.set_threshold(*RARE)
    try:
        yield
    finally:
        gc.set_threshold(*before)


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
def freed_memory_stays() -> Generator[None]:
    """For work that takes and frees the same large tensors again and again: what is freed stays with the process.

    Else glibc gives it back, and every page that is taken anew is a fault, which the kernel fills with zeros first: up
    to a third of a training step's products, on virtual machines. At the end what is free goes back. With other C
    libraries nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, 1 << 16)
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)  # where it would have moved to by itself
        libc.mallopt(TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)
