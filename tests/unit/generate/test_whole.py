"""Whole answers told token by token: turns, bounds, ends. Also what a scripted engine promises to tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import tune_run, until

from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.generate.engine import Decoding, Request
from tuneloop.generate.live import Ask, Busy, Piece, Served
from tuneloop.generate.scripted_live import ScriptedLive
from tuneloop.generate.whole import WholeAnswers


def ask(text: str = "one two three", **fields: Any) -> Ask:
    most = fields.pop("most", 100)
    return Ask(Request((Message("user", text),)), Decoding(most), "scripted", **fields)


class Told(list[Piece]):
    """Pieces of one answer."""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self)

    @property
    def finish(self) -> str | None:
        return self[-1].finish if self else None


@pytest.fixture
def engine() -> Iterator[ScriptedLive]:
    made = ScriptedLive(lambda ask: ask.request.messages[-1].content, places=2, queue=4)
    yield made
    made.resume()
    made.close()


def answered(engine: WholeAnswers, asked: Ask) -> Told:
    told = Told()
    engine.submit(asked, told.append)
    until(lambda: told.finish)
    return told


def test_one_token_a_piece_and_usage_with_the_last_alone(engine: ScriptedLive) -> None:
    told = answered(engine, ask("one, 二三\n four"))
    assert [piece.text for piece in told] == ["one", ",", " 二", "三", "\n four"]
    assert [piece.usage is not None for piece in told] == [False] * 4 + [True]
    assert told[-1].usage is not None and told[-1].usage.completion == 5


def test_stop_texts_and_the_limit_of_tokens(engine: ScriptedLive) -> None:
    assert answered(engine, ask("one two three", stop=("three", "two"))).text == "one "
    cut = answered(engine, ask("one two three", most=2))
    assert (cut.text, cut.finish) == ("one two", "length")
    assert answered(engine, ask("one two", most=2)).finish == "stop"
    assert (answered(engine, ask("")).text, answered(engine, ask("")).finish) == ("", "stop")


def test_askers_take_turns(engine: ScriptedLive) -> None:
    engine.pause()
    order: list[str] = []
    for user, number in (("a", 1), ("a", 2), ("a", 3), ("b", 4)):
        told = lambda piece, name=f"{user}{number}": piece.finish and order.append(name)  # noqa: E731
        engine.submit(ask("x", user=user), told)
    engine.resume()
    until(lambda: len(order) == 4)
    assert sorted(order[:2]) == ["a1", "b4"]


def test_a_full_queue_is_busy(engine: ScriptedLive) -> None:
    engine.pause()
    for _ in range(4):
        engine.submit(ask(), Told().append)
    with pytest.raises(Busy) as refused:
        engine.submit(ask(), Told().append)
    assert refused.value.retry_after > 0


def test_cancelled_and_overdue_answers_end_even_while_others_wait(engine: ScriptedLive) -> None:
    engine.pause()
    kept, cancelled, overdue = Told(), Told(), Told()
    engine.submit(ask(), kept.append)
    engine.submit(ask(), cancelled.append).cancel()
    engine.submit(ask(timeout=0.01), overdue.append)
    until(lambda: cancelled.finish == "cancelled" and overdue.finish == "timeout")
    assert not kept
    engine.resume()
    until(lambda: kept.finish == "stop")


def test_a_refused_prompt_and_a_fault_are_told_apart() -> None:
    def answer(asked: Ask) -> str:
        raise ModelError("too long") if asked.user == "long" else RuntimeError("broken")

    engine = WholeAnswers(answer, Served("scripted", "d", None))
    refused = answered(engine, ask(user="long"))
    assert (refused.finish, refused[-1].why, len(refused)) == ("refused", "too long", 1)
    assert engine.now().fault is None
    faulty = answered(engine, ask())
    assert (faulty.finish, engine.now().fault) == ("error", "RuntimeError: broken")
    with pytest.raises(ModelError):
        engine.submit(ask(), Told().append)
    engine.close()


def test_closing_cancels_what_is_under_way() -> None:
    engine = ScriptedLive(lambda ask: "x")
    engine.pause()
    told = Told()
    engine.submit(ask(), told.append)
    engine.close()
    assert told.finish == "cancelled"


def test_unknown_models_and_adapters_where_there_can_be_none(engine: ScriptedLive, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'other'"):
        engine.submit(Ask(Request(()), Decoding(1), "other"), Told().append)
    with pytest.raises(ModelError):
        engine.unload("other")
    folder = str(tune_run(tmp_path, "a"))
    assert engine.load("a", folder).adapter is not None
    with pytest.raises(ModelError, match="loaded already"):
        engine.load("a", folder)
    alone = WholeAnswers(lambda ask: "", Served("scripted", "d", None))
    with pytest.raises(ModelError, match="one model alone"):
        alone.load("a", folder)
    alone.close()
