"""Many calls of one function: in this process, in several, or (by extra) on a Ray cluster. Results come in order.

Functions and arguments are plain and picklable; files lie on a disk that all workers see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from tuneloop.core.errors import MissingExtra
from tuneloop.core.machine import cores

T = TypeVar("T")
R = TypeVar("R")
Executor = Literal["auto", "here", "processes", "ray"]
WORTH = 20_000  # rows; below, starting processes takes longer than the work


def each(
    function: Callable[[T], R], tasks: Sequence[T], executor: Executor = "auto", rows: int | None = None
) -> Iterator[R]:
    """function(task) for every task, in their order.

    `auto` takes processes where the tasks cover at least `WORTH` rows and there are several cores.
    """
    if executor == "auto":
        worth = rows is not None and rows >= WORTH and len(tasks) > 1 and cores() > 1
        executor = "processes" if worth else "here"
    if executor == "ray":
        yield from _on_ray(function, tasks)
    elif executor == "processes":
        yield from _in_processes(function, tasks)
    else:
        yield from map(function, tasks)


def _in_processes(function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # not fork: the console's threads and those of polars would be copied in whatever state they are
    with ProcessPoolExecutor(min(cores(), len(tasks)), get_context("spawn")) as pool:
        yield from pool.map(function, tasks)


def _on_ray(function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("ray", "executor 'ray'", "ray") from error
    library: Any = ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    if not library.is_initialized():
        library.init(log_to_driver=False)
    remote = library.remote(function)
    # not all at once: every pending result lies in the cluster's memory
    window, waiting = 4 * int(library.cluster_resources().get("CPU", 1)), []
    for task in tasks:
        waiting.append(remote.remote(task))
        if len(waiting) >= window:
            yield library.get(waiting.pop(0))
    for reference in waiting:
        yield library.get(reference)
