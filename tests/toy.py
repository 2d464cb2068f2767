"""Toy rows, conversations and training jobs that the tests of forward, tune and the invariants share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from accelerate import Accelerator

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.runs import Run
from tuneloop.forward.objective import Objective
from tuneloop.models.config import ModelConfig
from tuneloop.render.rendered import Rendered
from tuneloop.track import metrics
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.loop import Job
from tuneloop.tune.methods import Setting
from tuneloop.tune.model import gradients
from tuneloop.tune.moe import balance_of
from tuneloop.tune.optimizer import MasterOptimizer
from tuneloop.tune.terms import Extras
from tuneloop.tune.train import Tuned, tune
from tuneloop.tune.validation import Scorer, Validate

NO_DROPOUT = {"gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}}
"""GPT-2's config drops out by default, so two ways to compute would draw differently."""

AT_THE_END = {"save_every": 10_000}


def random_rows(count: int, seed: int = 0, vocab: int = 300, shortest: int = 3, longest: int = 24) -> list[Rendered]:
    """Rows of random tokens; the later half of each is scored, with weights of 0.5, 1 and 2."""
    draw = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        length = int(draw.integers(shortest, longest + 1))
        weights = draw.choice([0.5, 1.0, 2.0], length).astype(np.float32)
        weights[: max(1, length // 2)] = 0
        rows.append(Rendered(draw.integers(3, vocab, length).astype(np.int32), weights, f"row{index}"))
    return rows


def branching_rows(count: int, seed: int = 0) -> list[Rendered]:
    """Random rows of which each but the first begins as an earlier one does, for 16 to 30 tokens; a third is scored."""
    draw = np.random.default_rng(seed)
    rows = random_rows(count, seed, shortest=34, longest=60)
    for index in range(1, count):
        kept = int(draw.integers(16, 31))
        rows[index].ids[:kept] = rows[draw.integers(index)].ids[:kept]
    for row in rows:
        row.weights[1:] = draw.choice([0, 0, 0, 0.5, 1, 2], len(row) - 1)
    return rows


def counting_rows(count: int, seed: int = 0, length: int = 10) -> list[Rendered]:
    """Rows that a model learns in a few steps: each token is the one before plus one; all but the first are scored."""
    draw = np.random.default_rng(seed)
    starts = draw.integers(3, 40, count)
    weights = np.ones(length, np.float32)
    weights[0] = 0
    return [Rendered(np.arange(s, s + length).astype(np.int32), weights, f"row{i}") for i, s in enumerate(starts)]


def job_of(
    model: Any,
    rows: list[Rendered],
    folder: Path,
    *,
    packed: bool = True,
    share: bool = False,
    token_budget: int = 4096,
    validate: Validate | None = None,
    accelerator: Accelerator | None = None,
    **config: Any,
) -> Job:
    """A job on a model that is taken as it is; `config` are the fields of the branch `tune`.

    Without `save_every` only the end is saved: its default, ten times a run, is each step of runs as short as these.
    """
    from tuneloop.forward.attention import use_packed
    from tuneloop.forward.objective import core_of

    branch = TuneConfig.model_validate(
        {"method": "full", "learning_rate": 1e-2, "batch_size": 4, **AT_THE_END, **config}
    )
    trained = branch.method.apply(model)
    if packed:
        use_packed(core_of(trained))
    objective = Objective(trained, packed=packed, share=share)
    named = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    entries = branch.method.entries(trained, Setting(None, 7, partial(gradients, objective, rows, 0)))  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        objective=objective,
        optimizer=MasterOptimizer(named, branch.optimizer, branch.learning_rate, entries=entries),
        rows=rows,
        config=branch,
        validate=validate,
        accelerator=accelerator or Accelerator(cpu=True),
        folder=folder,
        seed=7,
        pad_id=0,
        token_budget=token_budget,
        extras=Extras(balance=balance_of(branch.moe, trained, core_of(trained).config)),
    )


def heights_of_products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the rows of every product with a linear layer's weight from now on."""
    seen: list[int] = []
    linear = F.linear

    def counting(h: Any, *rest: Any) -> Any:
        seen.append(len(h))
        return linear(h, *rest)

    monkeypatch.setattr(F, "linear", counting)
    return seen


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what differs from machine to machine."""
    rows = metrics.read(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in metrics.MEASURED} for row in rows]


def weights_of(job: Job) -> dict[str, Any]:
    """A copy of all weights that the job trains."""
    return {name: weight.detach().clone() for name, weight in job.optimizer.model_weights.items()}


def conversations(count: int, start: int = 0) -> list[Example]:
    """Sums to add, in English and Chinese; one of three has two turns."""
    out = []
    for row in range(start, start + count):
        question = f"Add {row} and 30." if row % 2 else f"{row}加30是多少？"
        turns = [Message("user", question), Message("assistant", f"{row + 30}")]
        if row % 3 == 0:
            turns += [Message("user", "Thanks!"), Message("assistant", "不客气。")]
        out.append(Example(tuple(turns), Origin("made.jsonl", row)))
    return out


def tune_in(
    root: Path,
    model: dict[str, Any],
    *,
    train: list[Example] | None = None,
    val: list[Example] | None = None,
    run: Run | None = None,
    seed: int = 7,
    scorer: Scorer | None = None,
    prompts: Sequence[Example] = (),
    **config: Any,
) -> tuple[Run, Tuned]:
    """The stage `tune` in a run folder of its own (or in `run`, which it continues); saves as `job_of` does."""
    values = {"learning_rate": 1e-2, "batch_size": 4, "steps": 5, "method": {"lora": {"rank": 4, "alpha": 8}}}
    branch = TuneConfig.model_validate({**values, **AT_THE_END, **config})
    run = run or Run.create(root, "tune", "toy", "sha256:0123456789", {}, branch)
    with run:
        model_config = ModelConfig.model_validate({"dtype": "fp32", **model})
        rows = train or conversations(12)
        tuned = tune(branch, model_config, rows, val or [], seed=seed, run=run, scorer=scorer, prompts=prompts)
    return run, tuned
