"""Checkpoints to resume from: safetensors and JSON, whole or absent, the last one and the best one kept.

A checkpoint is written beside its final name and renamed when complete, so a kill or a full disk leaves the previous
one as it was.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tuneloop.core import jsonl
from tuneloop.core.errors import RunError
from tuneloop.tune.optimizer import MasterOptimizer


@dataclass(frozen=True)
class Progress:
    """How far training is: everything but tensors that the next step depends on."""

    step: int = 0
    """Optimizer steps done."""
    best: float | None = None
    """Best value of the early-stopping metric so far."""
    best_step: int = 0
    stale: int = 0
    """Validations since the best one."""
    stopped: bool = False
    """Early stopping has ended the run."""
    loss_scale: float = 1.0
    """Factor on the loss against underflow in float16."""
    good_steps: int = 0
    """Steps since that factor last changed."""


def save(folder: Path, progress: Progress, optimizer: MasterOptimizer) -> None:
    """Writes `step-N` and removes the older ones. Raises RunError when the disk is full; the previous one stays."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in optimizer.state().items()}
    tensors["rng/torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    target = folder / f"step-{progress.step:07d}"
    _write(target, tensors, replace(progress, loss_scale=optimizer.loss_scale, good_steps=optimizer.good_steps))
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def save_best(folder: Path, progress: Progress, optimizer: MasterOptimizer) -> None:
    """Keeps the weights (without optimizer state) of the best validation so far."""
    _write(folder / "best", {name: master.detach().cpu() for name, master in optimizer.masters.items()}, progress)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def load(path: Path, optimizer: MasterOptimizer) -> Progress:
    """Restores weights, optimizer and random state, bit for bit."""
    tensors = _tensors(path)
    optimizer.load_state(tensors)
    torch.set_rng_state(tensors["rng/torch"])
    if "rng/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng/cuda"])
    progress = Progress(**jsonl.read(path / "progress.json"))
    optimizer.loss_scale, optimizer.good_steps = progress.loss_scale, progress.good_steps
    return progress


def load_best(folder: Path, optimizer: MasterOptimizer) -> None:
    """Puts the best validation's weights into the model."""
    with torch.no_grad():
        for name, tensor in _tensors(folder / "best").items():
            optimizer.masters[name].copy_(tensor)
    optimizer.publish()


def _write(target: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / "state.safetensors")
        jsonl.write(temporary / "progress.json", asdict(progress))
        aside = target.with_name(f".{target.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            os.replace(target, aside)
        os.replace(temporary, target)
        shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # a full disk is a SafetensorError where safetensors writes
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"{target}: the checkpoint could not be written ({error}); the previous one is whole. Make room, then "
            f"continue with: tuneloop tune --resume {target.parents[2].name}"
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path / "state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"{path}: this checkpoint cannot be read ({error})") from error
