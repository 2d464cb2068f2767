"""How evenly a model's experts are used before and after tuning: out/expert_load.json and a page of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tuneloop.core import jsonl
from tuneloop.core.runs import Run
from tuneloop.forward import routing
from tuneloop.forward.objective import Objective
from tuneloop.render.rendered import Rendered
from tuneloop.tune.loop import Job

ROWS = 64
"""The load is measured on that many rows, spread evenly over the training set."""
FULL = 3.0
"""A load of that many times the even one has the darkest shade."""


@contextmanager
def shown(job: Job, run: Run) -> Iterator[None]:
    """Around the training of a mixture-of-experts model: measures before and after it and writes both."""
    if job.extras.balance is None:
        yield
        return
    names, before_LE = measure(job.objective, job.rows, job.pad_id, job.token_budget)
    yield
    _, after_LE = measure(job.objective, job.rows, job.pad_id, job.token_budget)
    if job.accelerator.is_main_process:
        write(run.out, run.path.name, names, before_LE, after_LE)


def measure(objective: Objective, rows: Sequence[Rendered], pad_id: int, budget: int) -> tuple[list[str], Tensor]:
    """Names of the routers and how often each expert is chosen [L, E] by the tokens of a fixed sample of rows."""
    step = max(1, len(rows) // ROWS)
    sample = rows[::step][:ROWS]
    watched = routing.Routing(objective.model)
    picks = objective.micro_batches(sample, range(len(sample)), budget)
    batches = [objective.batch([sample[i] for i in picked], pad_id) for picked in picks]
    was_training = objective.training
    with objective.through_all_layers():
        choices_LE = watched.look_ahead(objective.eval(), batches)
    objective.train(was_training)
    return watched.names, choices_LE.cpu()


def write(out: Path, title: str, names: list[str], before_LE: Tensor, after_LE: Tensor) -> None:
    """Writes expert_load.json (loads relative to an even one, per router and expert) and expert_load.html."""
    before, after = routing.load(before_LE), routing.load(after_LE)
    jsonl.write(out / "expert_load.json", {
        "version": 1, "routers": names, "choices": int(after_LE.sum()),
        "before": torch.round(before, decimals=4).tolist(), "after": torch.round(after, decimals=4).tolist(),
    })  # fmt: skip
    from tuneloop.pages.heat import heat
    from tuneloop.pages.page import render

    pictures = [
        (
            label,
            heat(list(zip(names, loads.tolist(), strict=True)), "expert", FULL),
            float(loads.min()),
            float(loads.max()),
        )
        for label, loads in (("before tuning", before), ("after tuning", after))
    ]
    page = render("tuneloop.tune", "expert_load.html.jinja", title=title, pictures=pictures, full=FULL, rows=ROWS)
    (out / "expert_load.html").write_text(page, encoding="utf-8")
