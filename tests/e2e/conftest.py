"""The demo, run once for all tests that look at what it made."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from demo_run import Demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tuneloop.cli.main", "demo", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return Demo(folder, json.loads(done.stdout.splitlines()[-1]), done.stderr)
