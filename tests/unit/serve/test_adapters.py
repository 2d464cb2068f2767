"""Public names that move from one adapter to another while clients ask: no answer is lost, none is mixed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from serving import tune_run, until

from tuneloop.core import digest
from tuneloop.core.errors import ModelError, RunError
from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.models.cache import adapter_digest
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


def test_all_rooms_know_an_adapter_by_one_digest(engine: ScriptedLive, tmp_path: Path) -> None:
    """Its record counted for the engines and not for its name: a name stood for another model's words than it said."""
    roster, folder = Roster(engine, "toy"), tune_run(tmp_path, "a")
    first = roster.put("x", folder)
    assert first.adapter == adapter_digest(folder)
    assert first.name == f"ad-{digest.short(first.adapter)}"
    (folder / "tuneloop.json").write_text('{"base": "another"}')
    second = roster.put("y", folder)
    assert second.name != first.name and second.adapter == adapter_digest(folder) != first.adapter
    (folder / "README.md").write_text("of no matter")
    assert roster.put("z", folder) == second


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
