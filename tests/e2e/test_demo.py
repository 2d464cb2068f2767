"""The demo as a newcomer runs it: it learns, it generalises, what it says it wrote is there, and so is the README."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shell import tuneloop

from tuneloop.core import jsonl

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"make demo", "make test", "make base"}  # lines of the README that this test does not type

# measured: 0.004, 0.926 and 0.998; other CPUs round differently
BASE_AT_MOST, TUNED_AT_LEAST, KNOWN_AT_LEAST = 0.10, 0.90, 0.95
KINDS = {"recall", "arithmetic", "word", "classify", "form"}


@dataclass(frozen=True)
class Demo:
    """The folder in which `tuneloop demo --json` ran, its result, and what it said to people."""

    folder: Path
    result: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run once for all tests here."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tuneloop.cli.main", "demo", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return Demo(folder, json.loads(done.stdout.splitlines()[-1]), done.stderr)


def report_of(demo: Demo) -> dict[str, Any]:
    return jsonl.read(demo.folder / demo.result["runs"]["evaluate"] / "out" / "report.json")


def test_it_learns_what_the_base_cannot_do(demo: Demo) -> None:
    found = report_of(demo)["metrics"]["exact_match"]
    assert found["base"]["value"] <= BASE_AT_MOST
    assert found["tuned"]["value"] >= TUNED_AT_LEAST
    assert found["tuned"]["n"] == found["base"]["n"] >= 400
    assert found["difference"]["low"] > 0.2


def test_every_kind_language_and_wording_is_reported(demo: Demo) -> None:
    slices = report_of(demo)["slices"]
    assert set(slices["kind"]) == KINDS
    assert set(slices["language"]) == {"en", "zh"}
    assert set(slices["wording"]) == {"seen", "new"}
    for rows in slices.values():
        for metrics in rows.values():
            tuned = metrics["exact_match"]["tuned"]
            assert tuned["low"] <= tuned["value"] <= tuned["high"] and tuned["n"] >= 40


def test_forgetting_is_reported_on_facts_that_the_base_knows(demo: Demo) -> None:
    found = report_of(demo)["forgetting"]
    assert found["base"]["value"] >= KNOWN_AT_LEAST and found["base"]["n"] >= 400
    assert {"untouched", "touched"} == set(found["slices"]["group"])


def test_rows_lost_are_listed_and_add_up(demo: Demo) -> None:
    folder, result = demo.folder, demo.result
    out = folder / result["runs"]["prepare"] / "out"
    card = jsonl.read(out / "card.json")
    dropped = list(jsonl.read_lines(out / "dropped.jsonl"))
    assert card["rows"]["in"] == card["rows"]["kept"] + len(dropped)
    assert len(dropped) == sum(card["rows"]["dropped"].values()) > 0


def test_no_test_question_is_a_training_question(demo: Demo) -> None:
    folder, result = demo.folder, demo.result
    out = folder / result["runs"]["prepare"] / "out"

    def prompts(name: str) -> set[str]:
        return {row["messages"][0]["content"] for row in jsonl.read_lines(out / f"{name}.jsonl")}

    assert not prompts("test") & (prompts("train") | prompts("val"))


def test_it_ends_with_what_to_do_next(demo: Demo) -> None:
    folder, result, said = demo.folder, demo.result, demo.said
    for command in ("tuneloop chat", "tuneloop preview", "tuneloop report"):
        assert command in "\n".join(said.splitlines()[-5:])
    assert (folder / result["merged"] / "model.safetensors").is_file()
    page = (folder / result["report"]).read_text("utf-8")
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_the_tuned_model_answers_in_chat(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.folder)
    answer = tuneloop("chat", demo.result["merged"], "-m", "5+4=?", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["answers"] == ["9"]


def readme_commands() -> list[str]:
    """All lines of the README's `sh` blocks."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and line not in ELSEWHERE]


def test_the_commands_of_the_readme_run_as_written(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they stand, where the demo's stages are done; later ones use what others made.

    The first one and those that need a shell run in a process of their own, the others in this one.
    """
    monkeypatch.chdir(demo.folder)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    commands = readme_commands()
    assert len(commands) >= 5
    for number, command in enumerate(commands):
        if number and command.startswith("tuneloop ") and not set(command) & set("|<>*?$;&"):
            answer = tuneloop(*shlex.split(command)[1:])
            assert answer.code == 0, f"{command}\n{answer.out[-2000:]}\n{answer.err[-2000:]}"
            continue
        done = subprocess.run(
            command, shell=True, cwd=demo.folder, env=environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            pytest.fail(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
