"""Runs steps on Examples in memory, shard by shard as the pipeline does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuneloop.core.conversation import Example
from tuneloop.data.steps import Rejection, Rows, RowStep, SetStep, Step, Verdict


def decide(step: SetStep, examples: Sequence[Example], shards: int = 3) -> Verdict:
    """A set step's verdict; its keys are computed in `shards` parts."""
    size = -(-len(examples) // shards) or 1
    parts = [step.keys(examples[start : start + size]) for start in range(0, len(examples), size)]
    keys = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    assert all(len(array) == len(examples) for array in keys.values())
    return step.decide(
        Rows(
            keys,
            len(examples),
            lambda index: {"id": examples[index].id, "origin": examples[index].origin.to_json()},
            lambda indices: [examples[index] for index in indices],
        )
    )


def run(steps: Sequence[Step], examples: Sequence[Example]) -> tuple[list[Example], list[tuple[Example, Rejection]]]:
    """(kept, rejected) after the steps in their order."""
    kept, gone = list(examples), list[tuple[Example, Rejection]]()
    for step in steps:
        if isinstance(step, RowStep):
            found = [(example, step.look(example)) for example in kept]
            gone += [(example, result) for example, result in found if isinstance(result, Rejection)]
            kept = [result for _, result in found if isinstance(result, Example)]
        else:
            assert isinstance(step, SetStep)
            rejected = decide(step, kept).rejected
            gone += [(kept[index], rejection) for index, rejection in sorted(rejected.items())]
            kept = [example for index, example in enumerate(kept) if index not in rejected]
    return kept, gone
