"""The training benchmark: the same rows for all, whatever the order, and its smallest work from end to end."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the benchmark's modules importable, without the trial data beside the clone."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("training.made.SHARED", Path("nowhere"))


def rows_of(folder: Path, order: str) -> list[Any]:
    return [json.loads(line) for line in (folder / f"{order}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.usefixtures("training")
def test_all_get_the_same_rows_with_the_same_first_and_last_step(tmp_path: Path) -> None:
    from training.works import WORKS, lay_out, timed

    spec = json.loads(lay_out("smallest", 5, tmp_path, tmp_path).read_text("utf-8"))
    mixed, by_length = (rows_of(tmp_path, order) for order in ("mixed", "by_length"))
    size = WORKS["smallest"].batch_size
    assert len(mixed) == spec["steps"] * size == 5 * size
    assert mixed[:size] == by_length[:size] == mixed[-size:] == by_length[-size:]
    assert sorted(map(str, mixed)) == sorted(map(str, by_length))
    assert [row["input_ids"][-1] for row in mixed] == [row["labels"][-1] for row in mixed]  # the end is learnt
    assert all(row["labels"][0] == -100 for row in mixed)
    assert len(timed(WORKS["smallest"], [{}] * 5)) == 3


@pytest.mark.usefixtures("training")
def test_smallest_work_runs_and_gives_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import results
    from training.contestants import sample
    from training.measure import about_machine
    from training.works import lay_out

    monkeypatch.setattr("training.contestants.python", lambda script, work: sys.executable)  # nothing to install
    (folder := tmp_path / "sample").mkdir()
    taken = sample(lay_out("smallest", 3, tmp_path, tmp_path), "tuneloop", folder, tmp_path)
    assert taken.tokens_per_second > 0
    assert 0 < taken.first_step < taken.seconds
    assert taken.first_loss > taken.last_loss > 0
    stamp = {"machine": about_machine(), "rates": {"bf16": 1e12, "fp32": 1e11}, "at": "now", "code": "here"}
    rows = [{**asdict(taken), "tokens_per_second": rate, **stamp} for rate in (1, 3, 200)]
    rival = {**rows[0], "contestant": "trl", "tokens_per_second": 1.5}
    broken = {"work": "smallest", "contestant": "llama-factory", "failed": "exit 1", **stamp}
    lines = "".join(json.dumps(row) + "\n" for row in (*rows, rival, broken))
    (tmp_path / results.SAMPLES).write_text(lines, "utf-8")
    page = results.page(tmp_path, write=False)
    assert "| tuneloop | 3 | 1 3 200 | – |" in page  # the median, and every sample
    assert "| TRL, defaults | 2 | 2 | 2.0 |" in page  # tuneloop is twice as fast
    assert "failed: LLaMA-Factory, defaults: exit 1" in page
