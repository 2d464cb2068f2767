from __future__ import annotations

from pathlib import Path

import pytest
from rich.table import Table

from tuneloop.track import console


def test_everything_for_people_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a [bold]line[/]")
    with console.progress("reading", 3) as bar:
        bar.advance(3, note="loss 1.5")
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("a line\n")
    assert "3/3" in error and "loss 1.5" in error


def test_long_lines_are_not_broken_so_that_paths_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    path = "runs/" + "x" * 300
    console.say(path)
    console.decided("merged", path)
    assert capsys.readouterr().err.splitlines() == [path, f"merged      {path}"]


def test_a_fact_may_hold_what_looks_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.decided("decided", "[/INST] ends the [bold] prompt [/]")
    assert "[/INST] ends the [bold] prompt [/]" in capsys.readouterr().err


def test_without_a_total_a_bar_only_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("reading [x].jsonl", None) as bar:
        bar.advance(1234)
    error = capsys.readouterr().err
    assert "1,234" in error and "?" not in error and "[x].jsonl" in error


def test_what_is_said_in_the_block_is_copied_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    table = Table("run", "值")
    table.add_row("a", "巴黎")
    console.say("before")
    with console.logging_to(log):
        console.say("[green]first[/]")
        console.say(table)
    console.say("after")
    with console.logging_to(log):
        console.say("second")
    text = log.read_text("utf-8")
    assert text.startswith("first\n") and text.endswith("second\n")
    assert "巴黎" in text and "\x1b" not in text
    assert "before" not in text and "after" not in text


def test_the_log_is_closed_when_the_work_breaks(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), console.logging_to(tmp_path / "log.txt"):
        raise RuntimeError
    console.say("later")
    assert (tmp_path / "log.txt").read_text() == ""
