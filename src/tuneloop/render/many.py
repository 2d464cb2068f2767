"""Many conversations through a Renderer, in batches on all cores.

Templates are Python and hold its lock, the tokenizer lets go of it: while this thread writes texts, others tokenise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Protocol

from tuneloop.core.conversation import Drop, Example
from tuneloop.core.machine import cores
from tuneloop.render.rendered import Rendered, Unrenderable
from tuneloop.render.template import Overlong, Planned, Renderer

BATCH = 256
"""Examples that are tokenised together."""
Found = tuple[list[Rendered], list[Drop]]


class Progress(Protocol):
    """What is told how many Examples were rendered."""

    def advance(self, n: int, /) -> object: ...


def render_all(
    renderer: Renderer,
    examples: Iterable[Example],
    *,
    max_length: int | None = None,
    overlong: Overlong = "reject",
    progress: Progress | None = None,
) -> Found:
    """As `Renderer.render`, for many: all rows in order, and a Drop of step "render" for every Unrenderable."""
    rendered: list[Rendered] = []
    drops: list[Drop] = []
    for found, lost in render_batches(renderer, examples, max_length=max_length, overlong=overlong, progress=progress):
        rendered += found
        drops += lost
    return rendered, drops


def render_batches(
    renderer: Renderer,
    examples: Iterable[Example],
    *,
    max_length: int | None = None,
    overlong: Overlong = "reject",
    progress: Progress | None = None,
) -> Iterator[Found]:
    """`render_all` bit by bit."""
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[tuple[int, Future[Found]]] = deque()
        for batch in chain(_batches(examples, BATCH), [None]):
            if batch is not None:
                work = pool.submit(_tokenised, renderer, batch, renderer.plan(batch), max_length, overlong)
                waiting.append((len(batch), work))
            while waiting and (batch is None or len(waiting) > cores()):
                count, work = waiting.popleft()
                yield work.result()
                if progress is not None:
                    progress.advance(count)


def _tokenised(
    renderer: Renderer,
    batch: Sequence[Example],
    planned: Sequence[Planned],
    max_length: int | None,
    overlong: Overlong,
) -> Found:
    """From texts to weights in one thread: the tokenizer's results are small pieces of memory, slow to be freed by
    another one."""
    rendered: list[Rendered] = []
    drops: list[Drop] = []
    for example, found, encoded in zip(batch, planned, renderer.encode(planned), strict=True):
        if isinstance(found, Unrenderable):
            drops.append(_drop(example, found))
            continue
        try:
            rendered += renderer.finish(example, found, encoded, max_length, overlong)
        except Unrenderable as error:
            drops.append(_drop(example, error))
    return rendered, drops


def _drop(example: Example, why: Unrenderable) -> Drop:
    return Drop(example, "render", why.reason, example.origin, why.evidence)


def _batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    source = iter(examples)
    while batch := list(islice(source, size)):
        yield batch
