"""When Python looks for garbage, and what becomes of memory that was freed."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from tuneloop.core.machine import LIBRARIES_COME, RARE, rare_collector, without_collector

SCRIPT = """
import gc
from tuneloop.core import machine

usual = gc.get_threshold()
machine.libraries_are_here()
assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0), "in others' processes the collector is theirs"
machine.begin()
assert gc.get_threshold() == machine.LIBRARIES_COME

class Node:
    def __del__(self):
        print("freed", self.name)

def circle(name):
    node = Node()
    node.name, node.self = name, node

library = [[number] for number in range(1000)]
machine.libraries_are_here()
frozen = gc.get_freeze_count()
assert frozen > 1000
assert gc.get_threshold() == machine.RARE
circle("a")
gc.collect()
library.clear()
assert gc.get_freeze_count() < frozen - 900, "what has no circles is freed as ever"
machine.begin()
machine.libraries_are_here()
assert gc.get_threshold() == machine.RARE, "once a process"
circle("b")
gc.collect()
"""


def test_libraries_are_set_aside_once_and_circles_are_still_freed() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.split("\n")[:2]) == (0, ["freed a", "freed b"]), answer.stderr


def test_the_collector_is_as_it_was_afterwards() -> None:
    before = gc.get_threshold()
    with rare_collector():
        assert gc.get_threshold() == RARE
    assert gc.get_threshold() == before
    gc.set_threshold(*LIBRARIES_COME)
    try:
        with rare_collector():
            assert gc.get_threshold() == LIBRARIES_COME, "rarer still"
    finally:
        gc.set_threshold(*before)
    with without_collector():
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


FREED = """
import numpy as np
from tuneloop.core.machine import freed_memory_stays

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

def use():
    for _ in range(3):
        kept = [np.ones(20 << 17) for _ in range(10)]  # 20 MiB each

use()
before = resident()
with freed_memory_stays():
    use()
    print(resident() - before)
print(resident() - before)
use()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_stays_and_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    within, after, later = map(int, done.stdout.split())
    assert within > 150
    assert after < 50 and later < 100
