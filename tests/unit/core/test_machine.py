"""When Python looks for garbage."""

from __future__ import annotations

import subprocess
import sys

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
assert gc.get_threshold() == machine.LIBRARIES_ARE_HERE
circle("a")
gc.collect()
library.clear()
assert gc.get_freeze_count() < frozen - 900, "what has no circles is freed as ever"
machine.begin()
machine.libraries_are_here()
assert gc.get_threshold() == machine.LIBRARIES_ARE_HERE, "once a process"
circle("b")
gc.collect()
"""


def test_libraries_are_set_aside_once_and_circles_are_still_freed() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.split("\n")[:2]) == (0, ["freed a", "freed b"]), answer.stderr
