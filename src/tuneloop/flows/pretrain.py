"""Pre-training on documents: prepare and tune with every token weighted; no chat, no evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuneloop.core import recipe as loading
from tuneloop.core.errors import RecipeError
from tuneloop.core.runs import Run
from tuneloop.flows import lifecycle
from tuneloop.flows.recipe import Recipe


def pretrain(path: Path, settings: Sequence[str], root: Path, again: bool) -> Run:
    """Trains the recipe's model on its documents; the method is `full` where the recipe names none."""
    source = loading.read_yaml(path)
    source.value.setdefault("tune", {}).setdefault("method", "full")
    job = lifecycle.Job(loading.load(Recipe, source, settings), root, again)
    prepared = lifecycle.prepare(job)
    _only_documents(prepared)
    return lifecycle.tune(job, prepared)


def _only_documents(prepared: Run) -> None:
    from tuneloop.data.prepare import load_examples

    for example in load_examples(prepared.out / "train.jsonl"):
        if any(message.role != "text" for message in example.messages):
            raise RecipeError(
                f"pretrain takes documents, but {example.origin.source} row {example.origin.row} is a conversation: "
                "give the source `format: text`, or use `tuneloop tune`"
            )
