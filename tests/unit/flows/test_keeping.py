"""`tuneloop store`: what it says, what it deletes and what it leaves alone."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from shell import tuneloop

from tuneloop.core.conversation import Message
from tuneloop.core.errors import StoreError
from tuneloop.core.example_file import ExampleFile
from tuneloop.flows.keeping import moment
from tuneloop.serve.recording import user_of
from tuneloop.store import records, seal, store
from tuneloop.store.records import Feedback, Interaction


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service: alice of two keys and somebody without a name, each with one answer of 100 days ago and
    one new; alice of k1 has voted on all of them."""
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC)
    with store.open("sqlite:///tuneloop.db", seal.load(Path("tuneloop.secret"))) as kept:
        voter = kept.pseudonym(user_of("k1", "alice"))
        for key, name in (("k1", "alice"), ("k2", "alice"), ("k1", None)):
            for time in (now - timedelta(days=100), now):
                user, id = kept.pseudonym(user_of(key, name)), records.new_id()
                kept.record(Interaction(id, time, user, "m", (Message("user", "hi"),), "hello", "stop"))
                kept.feedback(Feedback(id, voter, now, thumb=1))
    return tmp_path


def told(*arguments: str) -> Any:
    answer = tuneloop("store", *arguments, "--json")
    assert answer.code == 0, answer.err
    return answer.json


def test_figures(filled: Path) -> None:
    found = told("stats")
    assert (found["answers"], found["users"], found["votes"]) == (6, 3, 6)
    assert found["from"] < found["to"]


def test_an_export_is_of_a_time(filled: Path) -> None:
    assert told("export", "all.jsonl")["answers"] == 6
    assert told("export", "new.jsonl", "--since", "30d")["answers"] == 3
    assert told("export", "old.jsonl", "--before", "4w")["answers"] == 3
    assert sum(1 for _ in ExampleFile(filled / "new.jsonl")) == 3


def test_expiring_says_first_how_much_would_go(filled: Path) -> None:
    assert told("expire", "--older-than", "90d") | {"before": ""} == {"answers": 3, "before": "", "deleted": False}
    assert told("stats")["answers"] == 6
    assert told("expire", "--older-than", "90d", "--yes")["answers"] == 3
    assert told("stats")["answers"] == 3


def test_a_user_is_deleted_by_name_and_key(filled: Path) -> None:
    assert told("delete-user", "alice")["answers"] == 0  # of nobody's key
    first = told("delete-user", "alice", "--key", "k1")
    assert (first["answers"], first["votes"], first["deleted"]) == (2, 6, False)
    assert told("stats")["votes"] == 6
    assert told("delete-user", "alice", "--key", "k1", "--yes")["deleted"]
    assert (told("stats")["answers"], told("stats")["votes"]) == (4, 0)
    assert told("delete-user", "--key", "k1", "--yes")["answers"] == 2
    assert told("stats")["answers"] == 2  # alice of the other key is somebody else


def test_a_log_that_was_changed_is_an_exit_code(filled: Path) -> None:
    told("expire", "--older-than", "90d", "--yes")
    assert told("verify") == {"whole": True, "entries": 1}
    with sqlite3.connect(filled / "tuneloop.db") as connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET actor = 'me'")
    answer = tuneloop("store", "verify", "--json")
    assert answer.code == 3 and answer.json["number"] == 1


def test_no_store_is_made_by_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = tuneloop("store", "stats")
    assert answer.code == 2 and "serve.store" in answer.err
    assert not list(tmp_path.iterdir())


def test_times_are_ages_or_dates() -> None:
    assert moment("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(hours=36) - moment("36h")) < timedelta(minutes=1)
    with pytest.raises(StoreError, match="90d"):
        moment("soon")
