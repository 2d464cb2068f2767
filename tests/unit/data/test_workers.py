"""Calls in this process, in several, or on a Ray cluster: the same results in the same order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core.errors import DataError, MissingExtra
from tuneloop.data import workers
from tuneloop.data.config import DataConfig
from tuneloop.data.prepare import prepare_in

Write = Callable[..., str]


def square(number: int) -> int:
    if number < 0:
        raise DataError(f"{number} is negative")
    return number * number


@pytest.mark.parametrize("executor", ["auto", "here", "processes"])
def test_results_come_in_order(executor: Any) -> None:
    assert list(workers.each(square, range(20), executor, rows=10**6)) == [number**2 for number in range(20)]
    assert list(workers.each(square, [], "here")) == []


@pytest.mark.parametrize("executor", ["here", "processes"])
def test_errors_arrive_as_they_are(executor: Any) -> None:
    with pytest.raises(DataError, match="-1 is negative"):
        list(workers.each(square, [1, -1, 2], executor))


def test_a_missing_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tuneloop\[ray\]'"):
        list(workers.each(square, [1], "ray"))


def test_a_local_ray_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra tuneloop[ray] is not installed")
    rows = [{"question": f"Question {n % 150} 问题", "answer": f"Answer {n % 150} to it"} for n in range(200)]
    config = DataConfig.model_validate(
        {"sources": [{"path": write("a.jsonl", rows)}], "steps": ["exact_duplicates", "near_duplicates"]}
    )
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        prepare_in(tmp_path / "ray", config, seed=0, executor="ray")
    finally:
        ray.shutdown()
    prepare_in(tmp_path / "here", config, seed=0, executor="here")
    for name in ("train.jsonl", "val.jsonl", "test.jsonl", "dropped.jsonl", "card.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
