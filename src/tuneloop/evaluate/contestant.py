"""What one model does with examples: its answers and likelihoods. Knows nothing of metrics or other models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneloop.core.conversation import Example
from tuneloop.generate.engine import Completion, Engine, Progress
from tuneloop.render.rendered import Unrenderable

if TYPE_CHECKING:
    from tuneloop.render.template import Rendered, Renderer

BLOCK = 256  # examples scored between two signs of progress; within a block `nll` forms its own batches

Nll = Callable[[Sequence["Rendered"]], list[tuple[float, float]]]
"""(summed nll in nats, summed weight) of each Rendered, as `forward.nll` gives them."""


@dataclass(frozen=True)
class Contestant:
    """A loaded model that can be asked: greedy answers by `engine`, likelihoods of given answers by `nll`."""

    engine: Engine
    renderer: Renderer
    nll: Nll


Entrant = Callable[[], AbstractContextManager[Contestant]]
"""Opens a contestant and lets go of it afterwards, so that two models need not be in memory together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer, or None with the reason why there is none."""

    text: str | None
    finished: bool = False
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of the supervised tokens of one example, or None with the reason."""

    nll: float | None
    tokens: float = 0.0
    why: str | None = None


def answers(
    contestant: Contestant, examples: Sequence[Example], max_new_tokens: int, progress: Progress | None = None
) -> list[Answer]:
    """The greedy answer to each example's prompt, in order."""
    found: list[Answer | None] = []
    prompts: list[list[int]] = []
    for example in examples:
        try:
            prompts.append(contestant.renderer.prompt(example.prompt, example.tools))
            found.append(None)
        except Unrenderable as error:
            found.append(Answer(None, why=error.reason))
    if progress is not None and len(prompts) < len(examples):
        progress(len(examples) - len(prompts))
    completions = iter(
        contestant.engine.complete(
            prompts, max_new_tokens=max_new_tokens, stop_ids=contestant.renderer.stop_ids, progress=progress
        )
    )
    return [_answer(next(completions)) if answer is None else answer for answer in found]


def _answer(completion: Completion) -> Answer:
    if completion.refused is not None:
        return Answer(None, why=completion.refused)
    return Answer(completion.text, completion.finished)


def likelihoods(
    contestant: Contestant, examples: Sequence[Example], progress: Progress | None = None
) -> list[Likelihood]:
    """The likelihood of each example's supervised tokens; the parts of an example that renders to several add up."""
    found: list[Likelihood] = []
    for start in range(0, len(examples), BLOCK):
        block = examples[start : start + BLOCK]
        found.extend(_likelihoods(contestant, block))
        if progress is not None:
            progress(len(block))
    return found


def _likelihoods(contestant: Contestant, examples: Sequence[Example]) -> list[Likelihood]:
    rendered: list[Rendered] = []
    parts: list[int | str] = []
    for example in examples:
        try:
            several = contestant.renderer.render(example)
        except Unrenderable as error:
            parts.append(error.reason)
        else:
            rendered.extend(several)
            parts.append(len(several))
    scored = iter(contestant.nll(rendered))
    found: list[Likelihood] = []
    for part in parts:
        if isinstance(part, str):
            found.append(Likelihood(None, why=part))
        else:
            pairs = [next(scored) for _ in range(part)]
            found.append(Likelihood(sum(nll for nll, _ in pairs), sum(weight for _, weight in pairs)))
    return found
