"""Two processes give what one gives: gradients are sums over disjoint rows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from toy import job_of, random_rows, weights_of

from tuneloop.track import metrics
from tuneloop.tune.loop import train
from tuneloop.tune.validation import Measured

ROWS, STEPS = 9, 4
NAME = "qwen3_moe"  # its router loss needs the load over all processes


def train_here(model: Any, folder: Path, out: Path) -> None:
    """Four steps of at most 4 rows; the last one of an epoch has a single row, so that one process has none."""
    values: list[float] = []

    def validate() -> Measured:
        values.append([3.0, 2.0, 2.5, 2.4][len(values)])
        return Measured({"loss": (values[-1], True)})

    job = job_of(
        model, random_rows(ROWS), folder, batch_size=4, steps=STEPS, save_every=2, token_budget=40,
        optimizer={"adamw": {"weight_decay": 0.1}}, validate=validate, validation={"every": 1},
        early_stopping={"patience": 9}, moe={"router_loss": 0.1},
    )  # fmt: skip
    # a parameter that no row uses gets no gradient and must not decay
    unused = torch.nn.Parameter(torch.ones(2, 2))
    job.objective.model.register_parameter("unused", unused)
    job.optimizer.model_weights["unused"] = job.optimizer.masters["unused"] = unused
    job.optimizer.optimizers[0].param_groups[0]["params"].append(unused)
    train(job)
    save_file({name: value.contiguous() for name, value in weights_of(job).items()}, out)


def test_two_processes_are_one(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    train_here(tiny_model(NAME), tmp_path / "one", tmp_path / "one.safetensors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tests = Path(__file__).resolve().parents[1]
    workers = []
    for rank in range(2):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
            "PYTHONPATH": os.pathsep.join([str(tests), str(Path(__file__).parent), *sys.path]),
        }  # fmt: skip
        workers.append(
            subprocess.Popen(
                [sys.executable, __file__, str(tmp_path / "two"), str(tmp_path / f"rank{rank}.safetensors")],
                env=environment, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    try:
        for worker in workers:
            _, said = worker.communicate(timeout=300)
            assert worker.returncode == 0, said[-3000:]
    finally:
        for worker in workers:
            worker.kill()  # one that lost its partner would wait for it
    one, first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "rank0", "rank1"))
    for name in one:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], one[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(one["unused"], torch.ones(2, 2))
    lines, expected = (metrics.read(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line, other in zip(lines, expected, strict=True):
        assert abs(line["loss"] - other["loss"]) < 1e-5 * other["loss"]
        assert line["tokens"] == other["tokens"]
        assert abs(line["router_loss"] - other["router_loss"]) < 1e-5 * other["router_loss"]
        assert line["expert_load_max"] == other["expert_load_max"]


if __name__ == "__main__":
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    from architectures import architecture_of

    torch.manual_seed(0)
    ids = {"vocab_size": 400, "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(**{**ids, **architecture_of(NAME)})
    train_here(AutoModelForCausalLM.from_config(config, dtype=torch.float32), Path(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
