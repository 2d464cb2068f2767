"""What errors turn into at the end of the command line."""

from __future__ import annotations

import errno
import os
import warnings

import pytest
from shell import tuneloop

from tuneloop import __version__
from tuneloop.cli import main as entry
from tuneloop.core.errors import MissingExtra, TuneloopError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """`failing(error)`: `tuneloop runs list` raises it."""

    def make(error: BaseException) -> None:
        def overview(root: object) -> None:
            raise error

        monkeypatch.setattr("tuneloop.flows.ledger.overview", overview)

    return make


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TuneloopError("what is wrong"), "error: what is wrong\n"),
        (MissingExtra("modelscope", "fetching", "modelscope"), "pip install 'tuneloop[modelscope]'"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "error: No space left on device: runs/a\n"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "error: Permission denied: runs\n"),
    ],
)
def test_users_errors_exit_2_without_traceback(failing, error: BaseException, told: str) -> None:
    failing(error)
    answer = tuneloop("runs", "list")
    assert answer.code == 2 and told in answer.err and "Traceback" not in answer.err


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_bugs_are_not_hidden(failing, error: BaseException) -> None:
    failing(error)
    with pytest.raises(type(error)):
        tuneloop("runs", "list")


def test_a_stop_by_the_user_exits_130(failing) -> None:
    failing(KeyboardInterrupt())
    assert tuneloop("runs", "list").code == 130


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "r.yaml", "--sett", "x=1"], "No such option: --sett"),
        (["preview", "r.yaml", "-n", "0"], "-n"),
        (["tune"], "give either a recipe or --resume RUN"),
        (["tune", "r.yaml", "--resume", "latest"], "give either a recipe or --resume RUN"),
        (["tune", "--resume", "latest", "--again"], "leave --set and --again out"),
        (["tune", "--resume", "latest", "--set", "seed=1"], "leave --set and --again out"),
    ],
)
def test_usage_errors_exit_2_and_say_what_is_wrong(arguments: list[str], told: str) -> None:
    answer = tuneloop(*arguments)
    assert answer.code == 2 and told in answer.err and answer.out == ""


def test_version_and_help_end_well() -> None:
    assert tuneloop("--version").out == f"tuneloop {__version__}\n"
    assert tuneloop("-h").out == tuneloop("--help").out != ""
    assert "Usage: tuneloop" in (bare := tuneloop()).out + bare.err


def test_warnings_of_libraries_do_not_reach_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(module: str) -> list[warnings.WarningMessage]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            entry._quiet_libraries()
            warnings.warn_explicit("old name", FutureWarning, "file.py", 1, module=module)
        return caught

    monkeypatch.setattr("sys.warnoptions", [])
    assert warned("transformers.modeling_utils") == []
    assert len(warned("tuneloop.tune.train")) == 1
    monkeypatch.setattr("sys.warnoptions", ["default"])
    assert len(warned("transformers.modeling_utils")) == 1


def test_what_the_user_set_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    entry._quiet_libraries()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
