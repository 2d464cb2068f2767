"""What the data costs in tokens of the recipe's model: the audit asks, and the data stage knows no models."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.core.conversation import Example
from tuneloop.core.errors import ModelError
from tuneloop.data.facts import Forecast
from tuneloop.flows.recipe import Recipe
from tuneloop.track import console


def measure(recipe: Recipe, examples: Sequence[Example]) -> Forecast | None:
    """Tokens and supervised tokens of some Examples, uncut; None where the recipe's tokenizer cannot be had here."""
    import numpy as np

    from tuneloop.render.load import find_renderer
    from tuneloop.render.many import render_all

    try:
        renderer = find_renderer(recipe.model)
    except ModelError as error:  # data can be prepared before the model is there
        console.decided("no forecast", f"tokens are not counted: {error}")
        return None
    with console.waiting("counting tokens"):
        rows, _ = render_all(renderer, examples)
    return Forecast(
        tokens=np.array([len(row) for row in rows]),
        supervised=np.array([row.supervised for row in rows]),
        max_length=recipe.tune.max_length,
        tokenizer=recipe.model.base or str(recipe.model.tokenizer),
    )
