"""Looking without starting anything: preview, check, report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tuneloop.core.errors import RunError
from tuneloop.core.runs import resolve
from tuneloop.flows.recipe import Recipe
from tuneloop.track import console

if TYPE_CHECKING:
    from tuneloop.data.prepare import Prepared

LISTED = "dropped.jsonl of `tuneloop prepare RECIPE.yaml`"
OVERHEAD = 1.15
"""Validation, checkpoints and start-up on top of the training steps, in the time estimate."""


def preview(recipe: Recipe, count: int, html: Path | None) -> dict[str, Any]:
    """The first training rows, token by token with their weights."""
    from tuneloop.core import jsonl
    from tuneloop.data.prepare import load_examples, nothing_left
    from tuneloop.render.load import find_renderer
    from tuneloop.render.preview import preview_rows, to_html, to_json, to_rich
    from tuneloop.tune.pairs import conversations

    renderer = find_renderer(recipe.model)
    with _prepared(recipe) as prepared:
        train = load_examples(prepared.train)
        if not train:
            raise nothing_left(prepared, LISTED)
    rows = preview_rows(
        renderer,
        conversations(recipe.tune.objective, train[:count]),
        2 * count,
        max_length=recipe.tune.max_length,
        overlong=recipe.tune.overlong,
    )
    for decision in renderer.decisions:
        console.decided("decided", decision)
    console.say(to_rich(rows))
    if html is not None:
        jsonl.write_text(html, to_html(rows))
        console.say(f"written: {html}")
    return to_json(rows)


@contextmanager
def _prepared(recipe: Recipe) -> Iterator[Prepared]:
    """The data as `prepare` makes it, in a folder that is gone afterwards."""
    from tuneloop.data.prepare import prepare_in

    with TemporaryDirectory() as folder:
        yield prepare_in(Path(folder), recipe.data, seed=recipe.seed)


def check(recipe: Recipe) -> dict[str, Any]:
    """Everything that can be known before a run: rows, losses, tokens, a masked row, memory, time."""
    import numpy as np

    from tuneloop.core.example_file import ExampleFile
    from tuneloop.data.prepare import nothing_left, say
    from tuneloop.forward import mixing
    from tuneloop.models.tokenizer import is_tokenizer_alone
    from tuneloop.render.flat import lengths_of, supervised_of
    from tuneloop.render.load import find_renderer
    from tuneloop.render.preview import preview_rows, to_rich
    from tuneloop.tune.pairs import conversations
    from tuneloop.tune.plan import Cost, Order
    from tuneloop.tune.rows import losses_in_words, render_rows, sources_of, with_canaries

    with _prepared(recipe) as prepared:
        say(prepared)
        train, mix = ExampleFile(prepared.train), mixing.read(prepared.train.parent)
        if not train:
            raise nothing_left(prepared, LISTED)
    renderer = find_renderer(recipe.model)
    rows = render_rows(renderer, train, recipe.tune, "render")
    for decision in renderer.decisions:
        console.decided("decided", decision)
    console.decided("rows", losses_in_words(rows, len(train)))
    rows, _ = with_canaries(renderer, rows, recipe.tune, recipe.seed, mix)
    learnt = supervised_of(rows.rendered)
    mixture = mixing.Mixture.of(mix, sources_of(rows, train), recipe.seed) if mix else None
    if mixture:
        console.decided("epoch", mixture.in_words(learnt))
    steps = Order(recipe.tune, rows.rendered, recipe.seed, mixture).epoch(0)
    cost = Cost.of(rows.rendered, steps)
    console.decided("compute", f"{cost.in_words(packed=True, share=True)} (where the architecture allows it)")
    epoch = [index for step in steps for index in step]
    of_epoch = (int(np.take(tokens, epoch).sum()) for tokens in (lengths_of(rows.rendered), learnt))
    shown = conversations(recipe.tune.objective, train[:1])
    console.say(to_rich(preview_rows(renderer, shown, 2, max_length=recipe.tune.max_length)))
    found = {
        "rows": prepared.card["rows"],
        "splits": prepared.card["splits"],
        "findings": prepared.card["findings"],
        "unrenderable": len(rows.drops),
        "tokens": rows.tokens,
        "supervised_tokens": rows.supervised,
        "padded_tokens": cost.padded,
        "computed_tokens": cost.shared,
    }
    if is_tokenizer_alone(recipe.model):
        console.say(f"{recipe.model.base} holds a tokenizer alone: memory and time need a model")
        return found
    return {**found, **_forecast(recipe, len(epoch), *of_epoch)}


def _forecast(recipe: Recipe, rows: int, epoch_tokens: int, supervised: int) -> dict[str, Any]:
    """Steps, memory and time of the tuning, from an epoch's rows and tokens, the model's config and the matrix rate."""
    import torch

    from tuneloop.forward.plan import token_budget
    from tuneloop.models import adapters
    from tuneloop.models.find import find_base
    from tuneloop.models.load import config_of
    from tuneloop.models.precision import matmul_rate, pick_dtype
    from tuneloop.tune.memory import Need

    base = find_base(recipe.model)
    for decision in base.decisions:
        console.decided("decided", decision)
    if base.adapter is not None:
        adapters.check_belongs(base.adapter, base)
    config = config_of(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype, why = pick_dtype(recipe.model.dtype, device)
    share = supervised / epoch_tokens
    given = recipe.tune.memory.token_budget
    tokens = given if isinstance(given, int) else token_budget(device)  # `find` tries only on the loaded model
    estimate = Need(recipe.tune, config, tokens, dtype, device, share).fit()
    steps = recipe.tune.total_steps(rows)
    tokens = round(steps * recipe.tune.batch_size / rows * epoch_tokens)
    seconds = OVERHEAD * estimate.seconds(tokens, matmul_rate(dtype, device))
    console.decided("base", f"{base.name} ({base.licence or 'licence unknown'}), {why}")
    for line in estimate.lines():
        console.say(line)
    console.decided(
        "training",
        f"{steps:,} steps, {tokens:,} tokens, {share:.0%} supervised, about {_duration(seconds)} on this machine "
        "(from its matrix rate, within a factor of two or three)",
    )
    return {
        "steps": steps,
        "parameters": estimate.parameters,
        "trainable_parameters": estimate.trainable,
        "memory_bytes": estimate.total,
        "fits": estimate.fits,
        "seconds": round(seconds),
    }


def report(name: str, root: Path) -> dict[str, Any]:
    """The table of a finished evaluation, and where its pages lie."""
    from tuneloop.evaluate.report import read
    from tuneloop.flows import lifecycle

    run = resolve(root, name, stage="evaluate", done=True)
    if run.stage != "evaluate" or not run.done:
        raise RunError(f"{run.path} is a {run.stage} run ({run.status}); report takes a finished evaluate run")
    lifecycle.show(run)
    return read(run.out).value


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
