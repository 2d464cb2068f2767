"""Moving to another database keeps everything, from either kind to either kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.store.conftest import SECRET, new_database
from tuneloop.core.errors import StoreError
from tuneloop.store import store
from tuneloop.store.records import Feedback, Interaction
from tuneloop.store.store import Store

NOW = datetime.now(UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/other.db"
    return new_database(request.getfixturevalue("postgres"))


def test_a_copy_holds_everything_and_goes_on(opened: Store, asked: Callable[..., Interaction], target: str) -> None:
    answers = [asked() for _ in range(5)]
    for thumb in (1, -1):
        opened.feedback(Feedback(answers[0].id, answers[0].user, NOW, thumb=thumb))
    key = opened.keys.create("a", ["chat"])
    assert opened.copy_to(target) == 5 + 2 + 1 + 1 + 1
    with store.open(target, SECRET, None) as moved:
        assert [moved.answer(one.id) for one in answers] == answers
        assert moved.votes(answers[0].id) == opened.votes(answers[0].id)
        assert moved.keys.verify(key) is not None
        assert list(moved.audit_log()) == list(opened.audit_log())
        moved.feedback(Feedback(answers[0].id, answers[0].user, NOW, thumb=0))
        moved.audit("a", "b")
        assert [vote.thumb for vote in moved.votes(answers[0].id)] == [1, -1, 0]
        assert moved.verify_audit() is None
    with pytest.raises(StoreError, match="not empty"):
        opened.copy_to(target)


def test_an_empty_store_is_copied_too(opened: Store, target: str) -> None:
    assert opened.copy_to(target) == 1
    with store.open(target, SECRET, None) as moved:
        moved.audit("a", "b")
        assert moved.verify_audit() is None
