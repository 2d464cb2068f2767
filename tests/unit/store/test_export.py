"""Exports: what `tuneloop prepare` reads, whole, in order, and for the owner alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.store.conftest import START
from tuneloop.core import jsonl
from tuneloop.core.conversation import Message, ToolCall
from tuneloop.core.example_file import ExampleFile
from tuneloop.data.formats import FORMATS
from tuneloop.store import export
from tuneloop.store.records import Feedback, Interaction
from tuneloop.store.store import Store

NOW = datetime.now(UTC)
Asked = Callable[..., Interaction]


def test_an_export_is_a_file_of_examples(opened: Store, asked: Asked, tmp_path: Path) -> None:
    earlier = (Message("user", "hi"), Message("assistant", "hello"), Message("user", "天气?"))
    call = ToolCall("weather", {"city": "北京"}, "c1")
    one = asked(prompt=earlier, answer="晴", calls=(call,), tools=({"name": "weather"},), version="sha256:1", arm="b")
    opened.feedback(Feedback(one.id, one.user, NOW, thumb=-1))
    opened.feedback(Feedback(one.id, one.user, NOW, thumb=1, corrected="多云", tags=("事实",)))
    asked()
    path = tmp_path / "out" / "answers.jsonl"
    assert opened.export(path) == 2
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = ExampleFile(path)
    assert first.answer == Message("assistant", "晴", tool_calls=(call,))
    assert [message.weight for message in first.messages] == [0, 0, 0, 1]  # only what this answer said is learnt
    assert first.tools == one.tools
    assert first.meta["answer"] == one.id
    assert (first.meta["version"], first.meta["arm"]) == ("sha256:1", "b")
    (vote,) = first.meta["feedback"]  # the one that counts
    assert (vote["thumb"], vote["corrected"], vote["tags"]) == (1, "多云", ["事实"])
    assert "feedback" not in second.meta
    assert (second.origin.source, second.origin.row) == ("store", 1)


def test_our_formats_read_it_unasked(opened: Store, asked: Asked, tmp_path: Path) -> None:
    one = asked()
    opened.export(tmp_path / "answers.jsonl")
    (row,) = jsonl.read_lines(tmp_path / "answers.jsonl")
    auto = FORMATS.make("auto")
    assert auto.choose([row], "export")[0] == "messages"  # type: ignore[attr-defined]
    parts = auto.parse(row)
    assert parts.messages == (*one.prompt, Message("assistant", one.answer))
    assert parts.meta["answer"] == one.id


@pytest.mark.parametrize("page", [1, 2, 3, 500])
def test_pages_neither_lose_nor_repeat(
    opened: Store, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(export, "_PAGE", page)
    made = [asked(time=START + timedelta(seconds=number // 4)) for number in range(12)]  # many at the same moment
    assert opened.export(tmp_path / "all.jsonl") == 12
    ids = [row.meta["answer"] for row in ExampleFile(tmp_path / "all.jsonl")]
    assert sorted(ids) == sorted(one.id for one in made)
    since, before = START + timedelta(seconds=1), START + timedelta(seconds=2)
    assert opened.export(tmp_path / "some.jsonl", since, before) == 4
    assert {row.meta["answer"] for row in ExampleFile(tmp_path / "some.jsonl")} == {one.id for one in made[4:8]}


def test_memory_does_not_grow_with_the_answers(opened: Store, asked: Asked, tmp_path: Path) -> None:
    for _ in range(2_000):
        asked(answer="x" * 5_000)  # 10 MB in all
    opened.flush()
    tracemalloc.start()
    assert opened.export(tmp_path / "all.jsonl") == 2_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "all.jsonl").stat().st_size > 10_000_000
    assert peak < 8_000_000  # two pages of 500


def test_it_is_on_record(opened: Store, tmp_path: Path) -> None:
    opened.export(tmp_path / "all.jsonl", START, actor="k7")
    (entry,) = opened.audit_log()
    assert (entry.actor, entry.action) == ("k7", "export")
    assert entry.detail == {"since": START.isoformat(), "before": None}
