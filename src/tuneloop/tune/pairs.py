"""Preference pairs for ORPO: a row with a better and a worse answer becomes two rendered rows that ask the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneloop.core.conversation import Drop, Example
from tuneloop.core.errors import DataError
from tuneloop.render.rendered import Rendered

if TYPE_CHECKING:
    from tuneloop.forward.objective import Objective
    from tuneloop.render.many import Progress
    from tuneloop.render.template import Overlong, Renderer
    from tuneloop.tune.objective import ObjectiveConfig


def sides(examples: Sequence[Example]) -> list[Example]:
    """Each row as two: with its answer, then with the rejected one; only this last answer is trained on.

    Raises DataError for rows without a rejected answer.
    """
    lonely = [example for example in examples if not example.rejected]
    if lonely:
        origin = lonely[0].origin
        raise DataError(
            f"tune.objective.orpo learns from two answers, but {len(lonely)} of {len(examples)} rows have no rejected "
            f"one, e.g. {origin.source}, row {origin.row}. Give preference data (docs/objectives.md, format "
            f"`preference`), or leave these rows out: data.steps: [{{filter: {{keep: \"rejected != ''\"}}}}]"
        )
    return [one for example in examples for one in (example.asking(example.answer), example.asking(*example.rejected))]


def conversations(objective: ObjectiveConfig, examples: Sequence[Example]) -> Sequence[Example]:
    """What is rendered of rows: themselves, or both sides of each where the objective compares them."""
    return sides(examples) if objective.orpo else examples


def render_pairs(
    renderer: Renderer, examples: Sequence[Example], *, max_length: int, overlong: Overlong, progress: Progress
) -> tuple[list[Rendered], list[Rendered], list[Drop]]:
    """(rows with the chosen answers, the same with the rejected ones, what is left out because one of both cannot be).

    Raises DataError as `sides` does.
    """
    from tuneloop.render.many import render_all

    both = sides(examples)
    rendered, drops = render_all(renderer, both, max_length=max_length, overlong=overlong, progress=progress)
    reasons = {id(drop.example): drop for drop in drops}
    sequences = iter(rendered)
    chosen: list[Rendered] = []
    rejected: list[Rendered] = []
    lost: list[Drop] = []
    for number, example in enumerate(examples):
        pair = both[2 * number : 2 * number + 2]
        # one supervised turn gives exactly one sequence
        found = [None if id(one) in reasons else replace(next(sequences), example=example.id) for one in pair]
        if found[0] is not None and found[1] is not None:
            chosen.append(found[0])
            rejected.append(found[1])
            continue
        drop = next(reasons[id(one)] for one in pair if id(one) in reasons)
        which = "" if found[0] is None else "the rejected answer: "
        lost.append(Drop(example, drop.step, f"{which}{drop.reason}", example.origin, drop.evidence))
    return chosen, rejected, lost


def weight_of(chosen: Rendered) -> float:
    """What a pair counts: the mean loss weight of its better answer, 1 unless the data say otherwise."""
    return float(chosen.weights[chosen.weights > 0].mean(dtype="float64"))


def preferences(
    objective: Objective, chosen: Sequence[Rendered], rejected: Sequence[Rendered], *, pad_id: int, budget: int
) -> dict[str, tuple[float, bool]]:
    """`orpo_loss` and `preference_accuracy` of pairs as validation values: (value, lower is better)."""
    import torch

    from tuneloop.forward.objective import nll
    from tuneloop.forward.preference import odds_ratio_loss

    means = [
        torch.tensor([-total / weight for total, weight in nll(objective, rows, pad_id=pad_id, budget=budget)])
        for rows in (chosen, rejected)
    ]
    weights = torch.tensor([weight_of(row) for row in chosen])
    shares = weights / weights.sum()
    return {
        "orpo_loss": (float((odds_ratio_loss(*means) * shares).sum()), True),
        "preference_accuracy": (float(((means[0] > means[1]) * shares).sum()), False),
    }
