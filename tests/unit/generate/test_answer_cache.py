from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tuneloop.core.conversation import Message, ToolCall
from tuneloop.generate import cache
from tuneloop.generate.cache import CachedEngine
from tuneloop.generate.engine import Completion, Decoding, Done, Engine, Request
from tuneloop.generate.scripted import ScriptedEngine

GREEDY = Decoding(20)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))
    return tmp_path / "answers"


def ask(*texts: str, seed: int = 0) -> list[Request]:
    return [Request((Message("user", text),), seed=seed) for text in texts]


def scripted(identity: str = "model 1") -> ScriptedEngine:
    return ScriptedEngine(lambda request: None if "?" in request.messages[0].content else "said", identity)


def files(root: Path) -> list[Path]:
    return list(root.rglob(cache.FILE))


def test_only_what_is_new_is_asked_and_answers_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = scripted(), scripted()
    expected = CachedEngine(first).answer(ask("a", "b"), GREEDY)
    assert "given before" not in capsys.readouterr().err
    told: dict[int, Completion] = {}
    found = CachedEngine(second).answer(ask("b", "new", "a"), GREEDY, told.__setitem__)
    assert found == [expected[1], Completion(tuple(b"said"), "said", True), expected[0]]
    assert [told[place] for place in range(3)] == found
    assert [one.known for one in found] == [True, False, True], "a cache says nothing of the engine's speed"
    assert [request.messages[0].content for request in second.asked] == ["new"]
    assert "2 of 3 were given before" in capsys.readouterr().err


def test_everything_that_an_answer_follows_from_is_in_its_key() -> None:
    engine = scripted()
    cached = CachedEngine(engine)
    variants = [
        (ask("a"), GREEDY),
        (ask("a"), Decoding(21)),
        (ask("a"), Decoding(20, temperature=1.0)),
        (ask("a", seed=1), Decoding(20, temperature=1.0)),
        (ask("a"), Decoding(20, temperature=1.0, top_p=0.5)),
        (ask("a"), Decoding(20, temperature=1.0, top_k=5)),
        ([Request((Message("user", "a"),), ({"name": "tool"},))], GREEDY),
        ([Request((Message("text", "a"),))], GREEDY),
    ]
    for _ in range(2):
        for requests, decoding in variants:
            cached.answer(requests, decoding)
    assert len(engine.asked) == len(variants)
    cached.answer(ask("a", seed=7), GREEDY)  # greedy answers do not depend on the seed
    assert len(engine.asked) == len(variants)
    CachedEngine(other := scripted("model 2")).answer(ask("a"), GREEDY)
    assert len(other.asked) == 1


def test_a_model_in_training_and_refusals_are_not_kept(root: Path) -> None:
    for engine, request in ((scripted(identity=""), ask("a")), (scripted(), ask("why?"))):
        for _ in range(2):
            CachedEngine(engine).answer(request, GREEDY)
        assert len(engine.asked) == 2


class Calling:
    identity = "calls"

    def answer(self, requests: list[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        found = [Completion((1, 2), "½\ud800", False, calls=(ToolCall("f", {"x": [1, None]}, "id"),)) for _ in requests]
        for place, completion in enumerate(found):
            if done is not None:
                done(place, completion)
        return found


def test_a_completion_comes_back_whole() -> None:
    engine: Engine = CachedEngine(Calling())  # type: ignore[arg-type]  # a list is a sequence
    assert engine.answer(ask("a"), GREEDY) == engine.answer(ask("a"), GREEDY) == Calling().answer(ask("a"), GREEDY)


class Killed(ScriptedEngine):
    """Dies after two answers."""

    def answer(self, requests: object, decoding: Decoding, done: Done | None = None) -> list[Completion]:
        assert done is not None and isinstance(requests, list)
        super().answer(requests[:2], decoding, done)
        raise KeyboardInterrupt


def test_what_came_before_the_end_is_known_afterwards() -> None:
    with pytest.raises(KeyboardInterrupt):
        CachedEngine(Killed(lambda request: "said", "model 1")).answer(ask("a", "b", "c"), GREEDY)
    CachedEngine(rest := scripted()).answer(ask("a", "b", "c"), GREEDY)
    assert [request.messages[0].content for request in rest.asked] == ["c"]


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"", b"SQLite format 3\x00" + bytes(9000)])
def test_a_damaged_file_costs_answers_only(root: Path, damage: bytes) -> None:
    CachedEngine(scripted()).answer(ask("a"), GREEDY)
    (file,) = files(root)
    file.write_bytes(damage)
    for expected in (1, 0):  # written anew, and used again
        CachedEngine(engine := scripted()).answer(ask("a"), GREEDY)
        assert len(engine.asked) == expected


def test_an_answer_that_was_changed_is_asked_again(root: Path) -> None:
    CachedEngine(scripted()).answer(ask("a"), GREEDY)
    (file,) = files(root)
    with sqlite3.connect(file) as open_file:
        open_file.execute("UPDATE answers SET value = replace(value, 'said', 'paid')")
    open_file.close()
    (found,) = CachedEngine(engine := scripted()).answer(ask("a"), GREEDY)
    assert found.text == "said" and len(engine.asked) == 1


def test_a_locked_file_or_none_at_all_is_no_obstacle(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    CachedEngine(scripted()).answer(ask("a"), GREEDY)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(path, **{**options, "timeout": 0.01}))
    (file,) = files(root)
    with connect(file, isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert CachedEngine(scripted()).answer(ask("a", "b"), GREEDY)[1].text == "said"
    holder.close()
    assert "not kept any more" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("TUNELOOP_CACHE", str(file))  # a file where a folder is needed
    assert CachedEngine(scripted()).answer(ask("a"), GREEDY)[0].text == "said"
    assert "cannot be used" in " ".join(capsys.readouterr().err.split())


def test_several_at_once_share_one_file(root: Path) -> None:
    questions = [str(number) for number in range(60)]

    def work(start: int) -> None:
        for text in questions[start:] + questions[:start]:
            CachedEngine(scripted()).answer(ask(text), GREEDY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (0, 15, 30, 45)))
    CachedEngine(engine := scripted()).answer(ask(*questions), GREEDY)
    assert not engine.asked and len(files(root)) == 1


def test_what_was_not_used_for_longest_goes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CachedEngine(scripted("old")).answer(ask("a"), GREEDY)
    monkeypatch.setattr(cache, "LIMIT", 1)
    CachedEngine(scripted("new")).answer(ask("a"), GREEDY)
    CachedEngine(engine := scripted("new")).answer(ask("a"), GREEDY)
    assert len(files(root)) == 1 and not engine.asked
