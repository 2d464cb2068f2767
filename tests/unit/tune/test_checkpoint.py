"""A checkpoint is whole or absent; a full disk or a kill leaves the previous one as it was."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tuneloop.core.errors import RunError
from tuneloop.tune import checkpoint
from tuneloop.tune.checkpoint import Progress
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.optimizers.adamw import AdamW


def optimizer_of(value: float) -> MasterOptimizer:
    return MasterOptimizer({"w": nn.Parameter(torch.full((3, 3), float(value)))}, AdamW(), 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "20261122-tune-x" / "out" / "checkpoints"


def test_random_state_and_progress_come_back(folder: Path) -> None:
    torch.manual_seed(3)
    progress = Progress(step=5, best=0.25, best_step=4, stale=1, loss_scale=1.0)
    checkpoint.save(folder, progress, optimizer_of(2.0))
    drawn = torch.rand(3)
    torch.rand(100)
    other = optimizer_of(0.0)
    found = checkpoint.latest(folder)
    assert found is not None and checkpoint.load(found, other) == progress
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other.model_weights["w"].detach(), torch.full((3, 3), 2.0))


def test_only_the_newest_stays(folder: Path) -> None:
    assert checkpoint.latest(folder) is None
    for step in (1, 2, 10):
        checkpoint.save(folder, Progress(step=step), optimizer_of(step))
    assert [path.name for path in folder.iterdir()] == ["step-0000010"]


def test_two_whole_ones_after_a_kill(folder: Path) -> None:
    checkpoint.save(folder, Progress(step=9), optimizer_of(9))
    (folder / "step-0000009").rename(folder / "aside")
    checkpoint.save(folder, Progress(step=10), optimizer_of(10))
    (folder / "aside").rename(folder / "step-0000009")
    (folder / ".step-0000011.tmp").mkdir()  # half written when the kill came
    (folder / ".step-0000011.tmp" / "state.safetensors").write_bytes(b"half")
    found = checkpoint.latest(folder)
    assert found is not None and found.name == "step-0000010"


@pytest.mark.parametrize("broken", ["save_file", "jsonl.write"])
def test_a_full_disk_leaves_the_previous_whole(broken: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(folder, Progress(step=1), optimizer_of(1.0))
    checkpoint.save_best(folder, Progress(step=1), optimizer_of(1.0))

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"tuneloop.tune.checkpoint.{broken}", fail)
    for save in (checkpoint.save, checkpoint.save_best):
        with pytest.raises(RunError, match=r"No space left.*previous one is whole.*--resume 20261122-tune-x"):
            save(folder, Progress(step=2), optimizer_of(2.0))
    monkeypatch.undo()
    assert sorted(path.name for path in folder.iterdir()) == ["best", "step-0000001"]
    other = optimizer_of(0.0)
    assert checkpoint.load(folder / "step-0000001", other).step == 1
    checkpoint.load_best(folder, other)
    assert float(other.model_weights["w"][0, 0].detach()) == 1.0


def test_a_disk_that_is_really_full(folder: Path) -> None:
    """safetensors reports it by an error of its own, which is no OSError."""
    large = MasterOptimizer({"w": nn.Parameter(torch.zeros(2000, 2000))}, AdamW(), 0.1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, hard))  # Python ignores the signal that comes with the error
    try:
        with pytest.raises(RunError):
            checkpoint.save(folder, Progress(step=1), large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.latest(folder) is None


def test_a_corrupt_checkpoint_is_an_error_that_names_it(folder: Path) -> None:
    checkpoint.save(folder, Progress(step=1), optimizer_of(1.0))
    (folder / "step-0000001" / "state.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(RunError, match="step-0000001: this checkpoint cannot be read"):
        checkpoint.load(folder / "step-0000001", optimizer_of(0.0))


def test_the_best_is_replaced(folder: Path) -> None:
    for value in (1.0, 2.0):
        checkpoint.save_best(folder, Progress(step=int(value), best=value), optimizer_of(value))
    other = optimizer_of(0.0)
    checkpoint.load_best(folder, other)
    assert float(other.model_weights["w"][0, 0].detach()) == 2.0
    assert [path.name for path in folder.iterdir()] == ["best"]
