"""API keys: shown once, kept as a seal, refused when revoked, expired or altered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from tests.unit.store.conftest import SECRET
from tuneloop.core.errors import StoreError
from tuneloop.store import database, store
from tuneloop.store.seal import Seal
from tuneloop.store.store import Store
from tuneloop.store.tables import KEYS


def test_a_key_is_good_until_it_is_revoked_anywhere(url: str, opened: Store) -> None:
    key = opened.keys.create("front desk", ["rate", "chat", "chat"])
    found = opened.keys.verify(key)
    assert found is not None
    assert (found.name, found.roles, found.used) == ("front desk", ("chat", "rate"), None)
    assert key.startswith(f"tl-{found.id}-")
    with store.open(url, SECRET) as elsewhere:
        assert elsewhere.keys.verify(key) == found
        elsewhere.keys.revoke(found.id)
        elsewhere.keys.revoke(found.id)
    assert opened.keys.verify(key) is None
    assert [entry.action for entry in opened.audit_log()] == ["create key", "revoke key"]


def test_a_key_of_wrong_letters_is_none(opened: Store) -> None:
    key, other = opened.keys.create("a", ["chat"]), opened.keys.create("b", ["admin"])
    wrong = ["", "tl-", key[:-1], key + "A", key.upper(), key[:11] + other[11:], f"tl-{'0' * 8}-{key[12:]}", "ключ",
             key + "\n", " " + key, "x" * 10**6]  # fmt: skip
    assert [opened.keys.verify(one) for one in wrong] == [None] * len(wrong)


def test_a_key_expires(opened: Store) -> None:
    now = datetime.now(UTC)
    late = opened.keys.create("late", ["chat"], now - timedelta(seconds=1))
    good = opened.keys.create("good", ["chat"], now + timedelta(hours=1))
    assert opened.keys.verify(late) is None
    assert opened.keys.verify(good) is not None
    assert [key.name for key in opened.keys.list()] == ["late", "good"]


def test_nothing_in_the_database_or_its_records_is_the_key(url: str, opened: Store) -> None:
    key = opened.keys.create("a", ["chat"])
    engine = create_engine(database.connect(url, Seal(SECRET)).url)
    with engine.connect() as connection:
        row: Any = connection.execute(select(KEYS)).one()
    assert key[12:] not in str(row) + str(opened.keys.list()) + str(list(opened.audit_log()))
    assert row.mac == Seal(SECRET).mac("key", key) != Seal(b"x" * 32).mac("key", key)
    engine.dispose()


def test_uses_are_written_together(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.open(url, SECRET) as opened:
        key = opened.keys.create("a", ["chat"])
        for _ in range(20):
            opened.keys.verify(key)
        opened.flush()
        assert opened.keys.list()[0].used is None  # no write a request
        monkeypatch.setattr("tuneloop.store.keys._USED_EVERY", -1.0)
        opened.keys.verify(key)
        opened.flush()
        used = opened.keys.list()[0].used
        assert used is not None
        monkeypatch.undo()
        opened.keys.verify(key)
    with store.open(url, SECRET) as again:
        last = again.keys.list()[0].used
        assert last is not None
        assert last > used  # closing writes what is left


@pytest.mark.parametrize(
    ("name", "roles", "words"),
    [("a", ["chta"], "did you mean 'chat'"), ("a", [], "without a role"), ("", ["chat"], "1 to 100"),
     ("a\x1b[2J", ["chat"], "printable")],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(opened: Store, name: str, roles: Any, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        opened.keys.create(name, roles)
    assert opened.keys.list() == []


def test_revoking_an_unknown_key_is_an_error(opened: Store) -> None:
    with pytest.raises(StoreError, match="no key 'nope'"):
        opened.keys.revoke("nope")
