"""`tuneloop evaluate` against a served model, stopped in the middle and run again."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply, chat_server, said
from shell import refused, start, tuneloop, write_recipe

from tuneloop.core import jsonl
from tuneloop.core.runs import resolve


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path, architecture: Any) -> Path:
    """A folder with a finished tune run of recipe.yaml; half of its rows are test rows."""
    folder = tmp_path_factory.mktemp("desk")
    write_recipe(folder, {"architecture": architecture("llama"), "tokenizer": str(tokenizer_folder)})
    recipe = (folder / "recipe.yaml").read_text("utf-8")
    split = "{train: 0.4, val: 0.1, test: 0.5}"
    (folder / "recipe.yaml").write_text(recipe.replace("data:\n", f"data:\n  split: {split}\n"), "utf-8")
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert tuneloop("tune", "recipe.yaml").code == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(autouse=True)
def inside(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tuned)
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))


def against(server: ChatServer, **more: Any) -> list[str]:
    typed = {"url": server.url, "model": "m", "concurrency": 1}
    settings = [f"evaluate.against.{key}={value}" for key, value in typed.items()]
    settings += [f"evaluate.{key}={value}" for key, value in more.items()]
    return ["evaluate", "recipe.yaml", *(word for setting in settings for word in ("--set", setting))]


def calculates(path: str, body: dict[str, Any]) -> Reply:
    """Answers the sums of shell.sums, every third one wrong."""
    first, second = (int(word) for word in body["messages"][-1]["content"][4:-1].split(" and "))
    return said(str(first + second + (first % 3 == 0)))


def report_of(answer: Any) -> dict[str, Any]:
    assert answer.code == 0, answer.err
    report = jsonl.read(Path(answer.json["run"]) / "out" / "report.json")
    for counts in report["answers"].values():
        del counts["seconds"], counts["known"]  # the clock, and what was asked before: two runs never share them
    return report


def test_a_served_model_is_asked_in_the_bases_place() -> None:
    with chat_server(calculates) as server:
        answer = tuneloop(*against(server, metrics="[exact_match, perplexity]"), "--json")
        found = report_of(answer)
    asked = [int(body["messages"][-1]["content"].split()[1]) for _, body, _ in server.asked]
    right = sum(number % 3 != 0 for number in asked) / len(asked)
    assert found["metrics"]["exact_match"]["base"]["value"] == pytest.approx(right) and 0 < right < 1
    assert found["metrics"]["exact_match"]["difference"]["n"] == len(asked) == found["n"]
    assert found["metrics"]["perplexity"]["base"]["value"] is None
    assert found["metrics"]["perplexity"]["tuned"]["n"] == found["n"]
    assert found["against"] == {"model": "m", "url": server.url}
    assert f"base: in its place m at {server.url} was asked" in answer.err
    assert "a likelihood needs the model's weights" in answer.err


def test_what_cannot_be_together_is_refused_before_anything_starts() -> None:
    with chat_server(calculates) as server:
        assert "`base: false` asks none" in refused(*against(server, base="false"))
        assert "evaluate twice" in refused(*against(server, forgetting="{}"))
        assert not server.asked


def test_a_server_that_is_not_there_is_a_users_error() -> None:
    with chat_server(calculates) as server:
        typed = against(server)
    assert "no server answers at" in refused(*typed)


def test_killed_in_the_middle_only_the_rest_is_asked() -> None:
    reached, over = threading.Event(), threading.Event()

    def stops_at_the_eighth(path: str, body: dict[str, Any]) -> Reply:
        if len(server.asked) == 8:
            reached.set()
            over.wait(60)
        return calculates(path, body)

    with chat_server(stops_at_the_eighth) as server:
        process = start(*against(server), cwd=Path.cwd())
        assert reached.wait(120), process.communicate()
        process.kill()
        process.communicate()
        before = [str(body["messages"]) for _, body, _ in server.asked]
        over.set()
        server.answer = calculates
        server.asked.clear()
        answer = tuneloop(*against(server), "--json")
        resumed = report_of(answer)
        after = [str(body["messages"]) for _, body, _ in server.asked]
        assert len(before) == 8 and before[:7] == list(dict.fromkeys(before[:7]))
        assert set(after) & set(before) == {before[7]} and len(after) + 7 == resumed["n"]
        assert f"7 of {resumed['n']} were given before" in answer.err
        server.asked.clear()
        anew = report_of(tuneloop(*against(server, cache="false"), "--json"))
        assert len(server.asked) == anew["n"]
    assert anew == resumed
    assert resolve(Path("runs"), "latest", stage="evaluate", done=True)


def test_our_own_models_answers_are_kept_too() -> None:
    first = tuneloop("evaluate", "recipe.yaml", "--json")
    again = tuneloop("evaluate", "recipe.yaml", "--again", "--json")
    assert report_of(first) == report_of(again)
    assert "were given before" not in first.err and again.err.count("were given before") == 2
