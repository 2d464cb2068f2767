"""Answers and votes: written exactly, the last vote counts, the version that answered keeps it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.store.conftest import SECRET, START
from tuneloop.core.conversation import Message, ToolCall
from tuneloop.core.errors import StoreError
from tuneloop.store import answers, records, store
from tuneloop.store.records import Feedback, Interaction, UnknownAnswer
from tuneloop.store.store import Store

NOW = datetime.now(UTC)
Asked = Callable[..., Interaction]
anything = st.text(st.characters(exclude_categories=[]), max_size=20)  # NUL and halves of surrogate pairs too


def test_an_answer_comes_back_as_it_was(opened: Store, asked: Asked) -> None:
    call = ToolCall("weather", {"city": "北京", "days": 2**70}, "call_1")
    prompt = (Message("system", "short"), Message("assistant", "", tool_calls=(call,)),
              Message("tool", "雨", tool_call_id="call_1"), Message("user", "so? 🌧"))  # fmt: skip
    one = asked(
        prompt=prompt, answer="", calls=(call,), tools=({"type": "function", "function": {"name": "weather"}},),
        version="sha256:1", adapter="sha256:2", retrieval="sha256:3", rules="sha256:4", decoding="sha256:5",
        first_ms=12.5, total_ms=340.25, prompt_tokens=100, cached_tokens=64, completion_tokens=7, arm="b",
        time=datetime(2026, 11, 22, 20, 15, 0, 123456, timezone(timedelta(hours=8))),
    )  # fmt: skip
    found = opened.answer(one.id)
    assert found == one
    assert found is not None
    assert found.time.tzinfo is UTC
    assert found.time.hour == 12


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything, anything, anything)
def test_any_text_is_kept(opened: Store, asked: Asked, question: str, answer: str, comment: str) -> None:
    one = asked(prompt=(Message("user", question),), answer=answer)
    assert opened.answer(one.id) == one
    vote = Feedback(one.id, one.user, NOW, thumb=0, corrected=answer, comment=comment, tags=(question,))
    opened.feedback(vote)
    assert opened.votes(one.id) == [vote]


def test_a_vote_is_there_when_it_returns_and_the_last_of_a_user_counts(url: str, opened: Store, asked: Asked) -> None:
    one, bob = asked("alice"), opened.pseudonym("bob")
    first = Feedback(one.id, one.user, NOW, thumb=-1, comment="错了", tags=("fact", "事实"))
    other = Feedback(one.id, bob, NOW, stars=4)
    last = Feedback(one.id, one.user, NOW, thumb=1, corrected="42")
    for vote in (first, other, last):
        opened.feedback(vote)
    with store.open(url, SECRET, None) as elsewhere:
        assert elsewhere.votes(one.id) == [first, other, last]
    assert answers.counting(opened.votes(one.id)) == [last, other]


def test_a_late_vote_belongs_to_the_version_that_answered(opened: Store, asked: Asked) -> None:
    old = asked(model="desk", version="sha256:old", adapter="sha256:a")
    asked(model="desk", version="sha256:new", adapter="sha256:b")
    opened.feedback(Feedback(old.id, old.user, NOW + timedelta(days=30), thumb=-1))
    (vote,) = opened.votes(old.id)
    answered = opened.answer(vote.answer)
    assert answered is not None
    assert (answered.version, answered.adapter) == ("sha256:old", "sha256:a")


def test_a_vote_for_no_answer_is_refused_and_hurts_no_other(opened: Store, asked: Asked) -> None:
    with pytest.raises(UnknownAnswer, match="no answer nowhere"):
        opened.feedback(Feedback("nowhere", opened.pseudonym("alice"), NOW, thumb=1))
    one = asked()
    opened.feedback(Feedback(one.id, one.user, NOW, thumb=1))  # right behind its answer, without a flush
    assert len(opened.votes(one.id)) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"thumb": 2}, "a thumb is"), ({"stars": 0}, "stars are 1 to 5"), ({"stars": 6}, "1 to 5"), ({}, "empty vote"),
        ({"thumb": 1, "tags": ("x",) * 21}, "at most 20 tags"), ({"thumb": 1, "tags": ("x" * 101,)}, "100 characters"),
        ({"thumb": 1, "user": "alice"}, "Store.pseudonym"), ({"thumb": 1, "time": datetime(2026, 1, 1)}, "no zone"),
    ],
)  # fmt: skip
def test_a_wrong_vote_says_what_is_wrong(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        Feedback(**{"answer": "x", "user": f"u1-{0:032}", "time": NOW, **fields})


def test_no_name_can_be_written(opened: Store, asked: Asked) -> None:
    with pytest.raises(StoreError, match="keyed hash"):
        replace(asked(), user="alice")
    assert opened.pseudonym("alice") == opened.pseudonym("alice") != opened.pseudonym("Alice")


def test_an_answer_that_the_database_refuses_is_told_and_takes_no_other_with_it(
    opened: Store, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    before = asked()
    asked(id=before.id, answer="another")
    after = asked()
    with caplog.at_level(logging.ERROR), pytest.raises(StoreError, match="could not be recorded: 1"):
        opened.flush()
    assert "another" not in caplog.text
    opened.flush()  # told once
    assert opened.answer(before.id) == before
    assert opened.answer(after.id) == after


def test_what_is_dropped_is_counted_and_not_gathered(opened: Store, asked: Asked) -> None:
    """A service never flushes: why each was refused was kept for ever."""
    before = asked()
    gathered: list[int] = []
    for number in range(40):
        asked(id=before.id, answer=f"another {number}")
        opened._writer.settle()
        gathered.append(sum(len(value) for value in vars(opened._writer).values() if isinstance(value, list)))
    assert opened.refused == 40
    assert max(gathered) <= 1
    with pytest.raises(StoreError, match="could not be recorded: 40; the first: "):
        opened.flush()
    assert opened.refused == 40


def test_what_cannot_be_masked_is_dropped_without_a_word_of_it(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        said = "".join(["SEC", "RET"])  # not to be seen in the line of code that the log shows
        raise ValueError(said)

    monkeypatch.setattr("tuneloop.store.redaction.Redaction.interaction", fault)
    made = store.open(url, SECRET)
    made.record(Interaction("a1", NOW, made.pseudonym("a"), "m", (Message("user", "SECRET"),), "x", "stop"))
    with caplog.at_level(logging.ERROR), pytest.raises(StoreError, match="could not be recorded: 1") as told:
        made.close()
    assert "SECRET" not in caplog.text + str(told.value)
    assert made.refused == 1


def test_the_same_answer_twice_is_one(opened: Store, asked: Asked) -> None:
    """As after a commit whose confirmation was lost: the writer writes again."""
    one = asked()
    opened.flush()
    opened.record(one)
    opened.flush()
    assert opened.answer(one.id) == one


def test_ids_grow_with_time_and_never_meet() -> None:
    ids = [records.new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)


def test_expiry_takes_what_is_older_with_its_votes(opened: Store, asked: Asked) -> None:
    old, new = [asked() for _ in range(3)], [asked() for _ in range(2)]
    for one in (old[0], new[0]):
        opened.feedback(Feedback(one.id, one.user, NOW, stars=3))
    assert opened.expire(new[0].time) == 3
    assert [opened.answer(one.id) for one in old] == [None] * 3
    assert opened.votes(old[0].id) == []
    assert [opened.answer(one.id) for one in new] == new
    assert len(opened.votes(new[0].id)) == 1
    assert opened.expire(START) == 0
    assert [entry.detail["answers"] for entry in opened.audit_log()] == [3, 0]
    with pytest.raises(UnknownAnswer):
        opened.feedback(Feedback(old[0].id, old[0].user, NOW, thumb=1))


def test_expiry_in_slices_is_whole(opened: Store, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.store.store._DELETED_AT_ONCE", 2)
    for _ in range(5):
        asked()
    assert opened.expire(START + timedelta(days=1)) == 5


def test_delete_user_takes_answers_and_votes_and_says_which(url: str, opened: Store, asked: Asked) -> None:
    alice, bob = opened.pseudonym("alice"), opened.pseudonym("bob")
    hers, his = [asked("alice", answer="MARKER-α"), asked("alice")], asked("bob")
    opened.feedback(Feedback(hers[0].id, bob, NOW, thumb=1, comment="MARKER-vote"))
    opened.feedback(Feedback(his.id, alice, NOW, thumb=-1))
    opened.feedback(Feedback(his.id, bob, NOW, thumb=1))
    gone = opened.delete_user(alice, actor="k1")
    assert gone == records.Deleted(tuple(sorted(one.id for one in hers)), votes=2)
    assert [opened.answer(one.id) for one in hers] == [None, None]
    assert [vote.user for vote in opened.votes(his.id)] == [bob]
    (entry,) = opened.audit_log()
    assert (entry.actor, entry.action, entry.detail) == ("k1", "delete user", {"user": alice, "answers": 2, "votes": 2})
    assert opened.delete_user(alice) == records.Deleted((), 0)
    with pytest.raises(StoreError, match="pseudonym"):
        opened.delete_user("alice")
    if url.startswith("sqlite"):
        files = Path(url.removeprefix("sqlite:///")).parent.iterdir()
        assert b"MARKER" not in b"".join(path.read_bytes() for path in files)  # not even on free pages
