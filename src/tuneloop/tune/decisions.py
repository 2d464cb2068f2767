"""What was decided for the user, said once before the first step: rows, precision, batch, memory, one masked sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneloop.core.conversation import Example
from tuneloop.models.find import Base
from tuneloop.models.fit import Fit
from tuneloop.render.flat import lengths_of, supervised_of
from tuneloop.render.preview import preview_rows, to_rich
from tuneloop.render.template import Renderer
from tuneloop.track import console
from tuneloop.tune import moe
from tuneloop.tune.loop import Job
from tuneloop.tune.pairs import conversations
from tuneloop.tune.plan import Cost
from tuneloop.tune.rows import Rows, losses_in_words


def say(
    job: Job, base: Base, renderer: Renderer, rows: Rows, memory: Fit, form: str, examples: Sequence[Example]
) -> None:
    """Says all of it; `form` is the precision and whether rows are packed, `memory` the estimate."""
    config = job.config
    trainable = config.method.count(job.objective.model)
    decided = console.decided
    held = f", the base held in {config.method.quantization}" if config.method.quantization else ""
    decided("base", f"{base.name}: {memory.parameters / 1e6:,.1f} M parameters, {trainable / 1e6:,.2f} M trained{held}")
    for decision in (config.method.words(job.objective.model), *base.decisions, *renderer.decisions):
        if decision:
            decided("decided", decision)
    decided("rows", losses_in_words(rows, len(examples)))
    if rows.paired and not rows.rejected:
        decided("decided", f"{rows.paired} rows have a rejected answer, which only tune.objective.orpo learns from")
    if job.mixture:
        decided("epoch", job.mixture.in_words(supervised_of(job.rows)))
    steps = job.order.epoch(0)
    first = [i for step in steps for i in step]
    tokens, supervised = (int(np.take(of(job.rows), first).sum()) for of in (lengths_of, supervised_of))
    about = "about " if job.mixture else ""
    decided("tokens", f"{about}{tokens:,} an epoch, {supervised:,} supervised ({supervised / tokens:.0%})")
    decided("compute", form)
    decided("compute", Cost.of(job.rows, steps).in_words(packed=job.objective.packed, share=job.objective.share))
    if job.extras.balance:
        decided("experts", moe.in_words(config.moe, job.extras.balance))
    ranks = f", on {job.accelerator.num_processes} processes" if job.accelerator.num_processes > 1 else ""
    decided(
        "steps",
        f"{job.total_steps:,} of {config.batch_size} examples{ranks}, micro-batches up to {job.token_budget:,} tokens; "
        f"a checkpoint every {job.save_every} steps",
    )
    for line in memory.lines()[1:]:
        console.say(line)
    console.say(to_rich(preview_rows(renderer, conversations(config.objective, examples[:1]), 2)))
