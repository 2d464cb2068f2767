"""Resumed = uninterrupted, bit for bit: weights, optimizer, dropout's random state, position in the data, metrics."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shell import start, tuneloop
from toy import job_of, lines_of, random_rows, weights_of

from tuneloop.flows import lifecycle
from tuneloop.flows.recipe import load_recipe
from tuneloop.forward.objective import mean_nll
from tuneloop.track import metrics
from tuneloop.tune.loop import Job, train
from tuneloop.tune.validation import Measured

Make = Callable[..., Any]
STEPS = 9


def job(model: Any, folder: Path, method: Any, optimizer: str) -> Job:
    """Three epochs with dropout (GPT-2 has it in its config), early stopping on a fixed curve, checkpoints every 2."""
    torch.manual_seed(11)

    def validate() -> Measured:
        loss = mean_nll(made.objective, made.rows[:3], pad_id=0, budget=100)
        return Measured({"loss": (loss, True)}, [{"id": "a", "prompt": [], "reference": "b", "answer": f"{loss}"}])

    made = job_of(
        model, random_rows(12), folder, method=method, optimizer=optimizer, validate=validate, steps=STEPS,
        save_every=2, validation={"every": 3}, early_stopping={"patience": 5}, learning_rate=3e-3,
    )  # fmt: skip
    return made


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("method", ["full", {"lora": {"rank": 4, "dropout": 0.25}}], ids=["full", "lora"])
@pytest.mark.parametrize("at", [1, 4, 5, 8])
def test_interrupted_at_any_step(at: int, method: Any, optimizer: str, tiny_model: Make, tmp_path: Path) -> None:
    whole = job(tiny_model("gpt2"), tmp_path / "whole", method, optimizer)
    expected = train(whole)
    broken = job(tiny_model("gpt2"), tmp_path / "broken", method, optimizer)
    step, done = broken.optimizer.step, 0

    def killed(*arguments: Any) -> None:
        nonlocal done
        if done == at:
            raise KeyboardInterrupt  # in the middle of a step, as a second ^C
        done += 1
        step(*arguments)

    object.__setattr__(broken.optimizer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    assert len(lines_of(tmp_path / "broken")) == at
    torch.rand(7)  # whatever happened in between must not matter
    # all that full tuning needs is in the checkpoint; an adapter's frozen base is not, nor a run before the first one
    seed = 99 if method == "full" and at >= 2 else 0
    again = job(tiny_model("gpt2", seed=seed), tmp_path / "broken", method, optimizer)
    assert train(again) == expected
    one, two = whole.optimizer.state(), again.optimizer.state()
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    ours, theirs = weights_of(whole), weights_of(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lines_of(tmp_path / "broken") == lines_of(tmp_path / "whole")
    said = [(tmp_path / name / "generations.jsonl").read_text() for name in ("broken", "whole")]
    assert said[0] == said[1] and len(said[0].splitlines()) == 3


RECIPE = """
name: killed
seed: 3
model: {{base: {base}, dtype: fp32}}
data:
  sources: [{{path: {data}}}]
tune:
  method: {{lora: {{rank: 4, dropout: 0.2}}}}
  steps: 40
  batch_size: 4
  learning_rate: 1.0e-2
  save_every: 3
  validation: {{every: 7, generate: 4}}
evaluate: {{metrics: [f1, perplexity], max_new_tokens: 6}}
"""


def test_kill_9_and_resume_by_the_command_line(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Add {n} and 30.", "response": str(n + 30)} for n in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=model_folder("gpt2"), data=data))

    job = lifecycle.Job(load_recipe(recipe), tmp_path / "whole")
    whole = lifecycle.tune(job, lifecycle.prepare(job)).path
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as here: sums of more threads have another order
    victim = start("tune", recipe, "--runs", "killed", cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not (found := list(tmp_path.glob("killed/*-tune-*/metrics.jsonl"))) or found[0].read_bytes().count(b"\n") < 8:
        assert victim.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    killed = found[0].parent
    assert json.loads((killed / "run.json").read_text())["status"] == "running" and not (killed / "DONE").exists()
    assert 8 <= len(metrics.read(killed / "metrics.jsonl")) < 40
    monkeypatch.chdir(tmp_path)
    resumed = tuneloop("tune", "--resume", killed.name, "--runs", "killed", "--json")
    assert resumed.code == 0, resumed.err[-3000:]
    assert tmp_path / resumed.json["run"] == killed
    assert (killed / "DONE").exists()
    assert lines_of(killed) == lines_of(whole)
    said = [(run / "generations.jsonl").read_bytes() for run in (killed, whole)]
    assert said[0] == said[1] and said[0].count(b"\n") == 6 * 2, "six validations of the two rows there are"
    assert [line["step"] for line in lines_of(killed)] == list(range(1, 41))
    name = "adapter/adapter_model.safetensors"
    assert (killed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    states = [load_file(next(run.glob("out/checkpoints/step-*/state.safetensors"))) for run in (whole, killed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
