"""Public names that move from one adapter to another while clients ask: no answer is lost, none is mixed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import SECONDS, tune_run, until

from tuneloop.core.errors import ModelError, RunError
from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.serve.adapters import Roster, UnknownModel


@pytest.fixture
def engine() -> Any:
    made = ScriptedLive(lambda ask: ask.model)
    yield made
    made.resume()
    made.close()


def test_names_stand_for_content_and_equal_content_is_loaded_once(engine: ScriptedLive, tmp_path: Path) -> None:
    roster = Roster(engine, "toy")
    one, same, other = (tune_run(tmp_path, name, data) for name, data in (("a", b"1"), ("b", b"1"), ("c", b"2")))
    first = roster.put("x", one)
    assert first.name.startswith("ad-") and len(first.name) == 15
    assert roster.put("y", same).name == first.name
    assert [served.name for served in engine.models()] == ["scripted", first.name]
    roster.put("x", other)  # y still stands for it: it stays
    assert first.name in [served.name for served in engine.models()]
    roster.remove("y")
    assert first.name not in [served.name for served in engine.models()]
    assert list(roster.listed()) == ["toy", "x"]


def test_no_name_contains_another(engine: ScriptedLive, tmp_path: Path) -> None:
    """peft's hotswap of "v1" zeroes "v10": loaded names all have one length, so none is part of another."""
    roster = Roster(engine, "toy")
    for number in range(12):
        roster.put(f"v{number}", tune_run(tmp_path, f"r{number}", bytes([number])))
    names = [served.name for served in engine.models()][1:]
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_what_cannot_be_moved_says_why(engine: ScriptedLive, tmp_path: Path) -> None:
    roster = Roster(engine, "toy")
    folder = tune_run(tmp_path, "a")
    for name in ("toy", "", "a b", "x" * 200, "über", "../x y"):
        with pytest.raises(RunError):
            roster.put(name, folder)
    with pytest.raises(RunError):
        roster.remove("toy")
    with pytest.raises(UnknownModel):
        roster.remove("nothing")
    assert list(roster.listed()) == ["toy"]


def test_an_adapter_that_does_not_load_leaves_the_old_one_in_place(
    engine: ScriptedLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = Roster(engine, "toy")
    old = roster.put("x", tune_run(tmp_path, "a", b"1"))

    def refuse(*_: Any) -> Any:
        raise ModelError("made on another base")

    monkeypatch.setattr(engine, "load", refuse)
    with pytest.raises(ModelError):
        roster.put("x", tune_run(tmp_path, "b", b"2"))
    assert roster.listed()["x"].name == old.name


def test_the_old_one_ends_its_answers_before_it_is_dropped(engine: ScriptedLive, tmp_path: Path) -> None:
    from tuneloop.generate.engine import Decoding, Request
    from tuneloop.generate.live import Ask, Piece

    roster = Roster(engine, "toy")
    old = roster.put("x", tune_run(tmp_path, "a", b"1"))
    engine.pause()
    told: list[Piece] = []
    with roster.choosing("x") as served:
        engine.submit(Ask(Request(()), Decoding(9), served.name), told.append)
    moving = threading.Thread(target=lambda: roster.put("x", tune_run(tmp_path, "b", b"2")))
    moving.start()
    until(lambda: roster.listed()["x"].name != old.name)
    with pytest.raises(ModelError):
        engine.submit(Ask(Request(()), Decoding(9), old.name), told.append)
    assert moving.is_alive() and not told
    engine.resume()
    moving.join()
    assert "".join(piece.text for piece in told) == old.name
    assert old.name not in [served.name for served in engine.models()]


def test_500_requests_of_8_clients_while_3_adapters_move(served: Any, tmp_path: Path) -> None:
    """Each answer names the model that gave it, which is one that the asked name stood for."""
    one = served(places=8, queue=1000, limits={"requests_per_minute": 100_000})
    admin, chat = one.key("admin"), one.key("chat")
    runs = tmp_path / "runs"
    for number in range(3):
        for version in range(4):
            tune_run(runs, f"r{number}-{version}", f"{number} {version}".encode())

    def put(client: httpx.Client, number: int, version: int) -> str:
        body = {"name": f"m{number}", "run": f"r{number}-{version}"}
        answer = client.post("/admin/adapters", json=body, headers=admin)
        assert answer.status_code == 200, answer.text
        return one.service.roster.listed()[f"m{number}"].name

    with httpx.Client(base_url=one.url, timeout=SECONDS) as client:
        fit = {number: {put(client, number, 0)} for number in range(3)}
        asked = iter(range(500))
        lock, over = threading.Lock(), threading.Event()
        answers: list[tuple[int, str, str]] = []

        def ask() -> None:
            with httpx.Client(base_url=one.url, timeout=SECONDS, headers=chat) as mine:
                while True:
                    with lock:
                        turn = next(asked, None)
                    if turn is None:
                        return
                    body = {"model": f"m{turn % 3}", "messages": [{"role": "user", "content": f"q{turn}"}]}
                    answer = mine.post("/v1/chat/completions", json=body)
                    assert answer.status_code == 200, answer.text
                    model, _, said = answer.json()["choices"][0]["message"]["content"].partition(" says: ")
                    answers.append((turn, model, said))

        def move() -> None:
            version = 0
            with httpx.Client(base_url=one.url, timeout=SECONDS) as mine:
                while not over.is_set():
                    version += 1
                    fit[version % 3].add(put(mine, version % 3, version % 4))

        mover = threading.Thread(target=move)
        mover.start()
        with ThreadPoolExecutor(8) as pool:
            results = [pool.submit(ask) for _ in range(8)]
        over.set()
        mover.join()
        for result in results:
            result.result()
    assert sorted(turn for turn, _, _ in answers) == list(range(500))
    for turn, model, said in answers:
        assert model in fit[turn % 3] and said == f"q{turn}"
    assert len(one.engine.models()) == 4  # nothing is left of those that were moved away
