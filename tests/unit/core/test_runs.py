from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core import digest, jsonl, runs
from tuneloop.core.errors import DataError, RunError, TrainingError
from tuneloop.core.plugins import Branch
from tuneloop.core.runs import Run

HOLDER = """
import sys, time
from pathlib import Path
from tuneloop.core.runs import Run
with Run.open(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Config(Branch):
    rate: float = 0.5
    """A rate."""


def new(root: Path, stage: str = "tune", name: str = "desk", key: str | None = None, **inputs: str) -> Run:
    return Run.create(root, stage, name, key or digest.of_value(inputs), inputs, Config())


def finished(root: Path, stage: str = "tune", name: str = "desk", key: str | None = None) -> Run:
    with new(root, stage, name, key) as run:
        (run.out / "a.txt").write_text("a")
    return run


def recorded(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "run.json").read_text())


# -- life of a run -----------------------------------------------------------------------------------------------------
def test_a_new_run_says_what_it_is_and_where_it_came_from(tmp_path: Path) -> None:
    run = new(tmp_path, name="Support desk / 客服", train="sha256:00")
    assert run.path.name.split("-", 2)[2] == f"tune-Support-desk-客服-{digest.short(run.record['key'], 4)}"
    record = recorded(run)
    assert (record["stage"], record["status"], record["inputs"]) == ("tune", "created", {"train": "sha256:00"})
    assert record["versions"]["torch"]
    assert (run.path / "recipe.yaml").read_text() == "rate: 0.5\n"
    assert run.out.is_dir() and not run.done


def test_a_run_that_ends_well_lists_its_outputs_and_writes_done_last(tmp_path: Path) -> None:
    with new(tmp_path) as run:
        assert recorded(run)["status"] == "running" and run.status == "running"
        (run.out / "model").mkdir()
        (run.out / "model" / "weights").write_text("w")
        (run.out / "checkpoints").mkdir()
        (run.out / "checkpoints" / "4").write_text("c")
        (run.out / ".half.tmp").write_text("of a killed process")
        assert not run.done
    assert run.done and run.status == "done"
    assert recorded(run)["outputs"] == {"model/weights": digest.of_file(run.out / "model" / "weights")}
    assert (run.path / "DONE").stat().st_mtime_ns >= (run.path / "run.json").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (TrainingError("loss is not finite in row 7"), "failed", "loss is not finite in row 7"),
        (ValueError("a bug"), "failed", "Traceback"),
        (KeyboardInterrupt(), "interrupted", "^C"),
    ],
)
def test_a_run_that_breaks_states_why_and_can_be_run_again(
    tmp_path: Path, error: BaseException, status: str, told: str
) -> None:
    run = new(tmp_path)
    with pytest.raises(type(error)), run:
        raise error
    assert not run.done and recorded(run)["status"] == status
    assert recorded(run)["error"].startswith(told)
    with Run.open(run.path):
        pass
    assert Run.open(run.path).status == "done" and recorded(run)["error"] is None


def test_a_full_disk_does_not_hide_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="while training"), new(tmp_path):
        monkeypatch.setattr(jsonl, "write", full)
        raise OSError(28, "while training")


# -- one process at a time ---------------------------------------------------------------------------------------------
@pytest.fixture
def held(tmp_path: Path) -> Any:
    """A run that another process works on, and that process."""
    run = new(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield run, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_a_killed_one_leaves_an_interrupted_run(held: Any) -> None:
    run, process = held
    assert Run.open(run.path).status == "running"
    with pytest.raises(RunError, match="another process is using this run"):
        Run.open(run.path).__enter__()
    with pytest.raises(RunError, match="another process"):
        runs.remove(run)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert recorded(run)["status"] == "running"
    assert Run.open(run.path).status == "interrupted"
    with Run.open(run.path) as again:
        assert again.status == "running"


def test_asking_for_the_status_leaves_no_trace(tmp_path: Path) -> None:
    run = new(tmp_path)
    before = sorted(os.listdir(run.path))
    assert Run.open(run.path).status == "created"
    assert sorted(os.listdir(run.path)) == before


# -- finding -----------------------------------------------------------------------------------------------------------
def test_the_same_work_has_the_same_key(tmp_path: Path) -> None:
    key = runs.run_key("tune", {"rate": 1, "x": 2}, {"a": "sha256:1"})
    assert key == runs.run_key("tune", {"x": 2, "rate": 1}, {"a": "sha256:1"})
    assert key != runs.run_key("tune", {"rate": 2, "x": 2}, {"a": "sha256:1"})
    assert key != runs.run_key("tune", {"rate": 1, "x": 2}, {"a": "sha256:2"})
    assert key != runs.run_key("prepare", {"rate": 1, "x": 2}, {"a": "sha256:1"})


def test_a_run_is_found_by_key_the_newest_first(tmp_path: Path) -> None:
    assert runs.find(tmp_path, "sha256:aa", done=True) is None
    finished(tmp_path, key="sha256:aa")
    newest = finished(tmp_path, key="sha256:aa")
    open_run = new(tmp_path, key="sha256:aa")
    finished(tmp_path, key="sha256:bb")
    for done, run in ((True, newest), (False, open_run)):
        found = runs.find(tmp_path, "sha256:aa", done=done)
        assert found is not None and found.path == run.path


def test_runs_of_one_minute_keep_their_order(tmp_path: Path) -> None:
    made = [new(tmp_path, stage).path for stage in ("tune", "evaluate", "prepare", "tune")]
    assert [run.path for run in runs.all_runs(tmp_path)] == made
    assert runs.resolve(tmp_path, "latest").path == made[-1]


def test_a_name_fits_by_path_by_folder_or_by_an_unambiguous_part(tmp_path: Path) -> None:
    one, other = new(tmp_path, "prepare", "alpha"), new(tmp_path, "tune", "beta")
    for name in (str(one.path), one.path.name, "alpha", "prepare"):
        assert runs.resolve(tmp_path, name).path == one.path
    assert runs.resolve(Path("nowhere"), str(other.path)).path == other.path
    with pytest.raises(RunError, match=r"'a-' fits 2 runs .*alpha.*beta"):
        runs.resolve(tmp_path, "a-")
    with pytest.raises(RunError, match=r"no run 'gamma' in .* `tuneloop runs list`"):
        runs.resolve(tmp_path, "gamma")
    with pytest.raises(RunError, match="no run in"):
        runs.resolve(tmp_path / "empty", "latest")


def test_a_whole_name_is_taken_even_where_it_is_part_of_another(tmp_path: Path) -> None:
    first = new(tmp_path)
    second = new(tmp_path)
    assert second.path.name == f"{first.path.name}-2"
    assert runs.resolve(tmp_path, first.path.name).path == first.path


def test_a_run_is_found_by_its_name_beside_those_that_came_of_it(tmp_path: Path) -> None:
    """`tuneloop remedy sums` again, after it has made sums-replay and sums-keep."""
    tuned, _, _ = finished(tmp_path, name="sums"), finished(tmp_path, name="sums-replay"), finished(tmp_path, "prepare")
    assert runs.resolve(tmp_path, "sums", stage="tune", done=True).path == tuned.path
    with pytest.raises(RunError, match="fits 2 runs"):
        runs.resolve(tmp_path, "sum", stage="tune", done=True)


def test_the_stage_chooses_where_a_name_fits_several(tmp_path: Path) -> None:
    prepared, tuned = finished(tmp_path, "prepare"), finished(tmp_path, "tune")
    stopped = new(tmp_path, "tune", "stopped")
    evaluated = finished(tmp_path, "evaluate")
    for name in ("desk", "latest"):
        assert runs.resolve(tmp_path, name, stage="tune", done=True).path == tuned.path
        assert runs.resolve(tmp_path, name, stage="evaluate", done=True).path == evaluated.path
    assert runs.resolve(tmp_path, "latest", stage="tune", done=False).path == stopped.path
    assert (
        runs.resolve(tmp_path, prepared.path.name, stage="tune").path == prepared.path
    )  # the caller says what is wrong
    with pytest.raises(RunError, match="no finished pretrain run in"):
        runs.resolve(tmp_path, "latest", stage="pretrain", done=True)


def test_what_is_no_run_folder_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json: not valid JSON"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(RunError, match="not the record of a run"):
        Run.open(tmp_path)


def test_a_removed_run_is_gone(tmp_path: Path) -> None:
    run = finished(tmp_path)
    runs.remove(run)
    assert list(tmp_path.iterdir()) == []
