from __future__ import annotations

from pathlib import Path

import pytest

from tuneloop.core.errors import DataError
from tuneloop.track.metrics import Metrics, read


def write(folder: Path, steps: range, resume_from: int = 0) -> None:
    with Metrics(folder, resume_from=resume_from) as metrics:
        for step in steps:
            metrics.write({"step": step, "loss": 1 / step, "note": f"of {resume_from}", "val": None})


def test_every_step_is_one_line_at_once(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write({"step": 1, "loss": 2.0})
        assert read(metrics.path) == [{"step": 1, "loss": 2.0}]


def test_a_resumed_run_has_neither_gap_nor_repeat(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(5, 10), resume_from=4)
    rows = read(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["note"] for row in rows] == ["of 0"] * 4 + ["of 4"] * 5


def test_a_run_begun_anew_keeps_no_old_line(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(1, 3))
    assert [row["step"] for row in read(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert [row["step"] for row in read(path)] == [1, 2]
    write(tmp_path, range(3, 5), resume_from=2)
    assert [row["step"] for row in read(path)] == [1, 2, 3, 4]


def test_a_corrupt_line_elsewhere_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not valid JSON"):
        read(path)
