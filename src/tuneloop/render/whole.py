"""Rows of which every position counts, whatever its loss weight: what two models are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.render.rendered import Rendered, Unrenderable

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer


def render_whole(renderer: Renderer, examples: Sequence[Example], max_length: int, place: str) -> list[Rendered]:
    """Whole conversations, or what asks for an answer where there is none, cut at `max_length` tokens.

    Raises DataError, naming `place` of the recipe, when none can be rendered.
    """
    import numpy as np

    rows: list[Rendered] = []
    reasons: list[str] = []
    for example in examples:
        try:
            if any(message.weight > 0 for message in example.messages):
                rows += renderer.render(example, max_length=max_length, overlong="truncate")
            else:
                ids = np.asarray(renderer.prompt(example.messages, example.tools)[:max_length], np.int32)
                rows.append(Rendered(ids, np.zeros(len(ids), np.float32), example.id))
        except Unrenderable as error:
            reasons.append(error.reason)
    if not rows:
        why = f", e.g.: {reasons[0]}" if reasons else ""
        raise DataError(f"{place}: none of {len(examples)} rows can be rendered{why}")
    return rows
