"""Signed ids, pseudonyms and the secret's file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.errors import StoreError
from tuneloop.store import records, seal
from tuneloop.store.seal import Seal

OURS, OTHER = Seal(b"a" * 32), Seal(b"b" * 32)


def test_a_signed_id_is_read_by_its_server_alone() -> None:
    answer = records.new_id()
    assert OURS.check(OURS.sign(answer)) == answer
    assert OTHER.check(OURS.sign(answer)) is None
    assert OURS.check(answer) is None


@given(st.text(), st.integers(0, 10**6), st.characters())
def test_forged_ids_are_refused(text: str, place: int, character: str) -> None:
    assert OURS.check(text) is None
    signed = OURS.sign("answer-1")
    place %= len(signed)
    forged = signed[:place] + character + signed[place + 1 :]
    assert OURS.check(forged) == ("answer-1" if forged == signed else None)


def test_forged_ids_of_odd_forms_are_refused() -> None:
    signed = OURS.sign("answer-1")
    for forged in ("", ".s1-", signed[:-1], signed + "0", signed.upper(), signed.replace(".s1-", ".s2-"), "x" * 10**6):
        assert OURS.check(forged) is None


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert len({OURS.mac(purpose, "x") for purpose in ("answer", "user", "key", "audit", "store")}) == 5


def test_a_secret_is_made_once_and_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(seal.load, [path] * 8))
    assert len(made) == 1
    (secret,) = made
    assert len(secret) == 32
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [one.name for one in path.parent.iterdir()] == ["secret"]
    assert secret.hex() not in repr(Seal(secret)) + str(vars(Seal)) and str(secret) not in repr(Seal(secret))


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    seal.load(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        seal.load(path)


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "ab" * 16])
def test_a_file_without_a_secret_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="no secret"):
        seal.load(path)
    assert path.read_text() == text


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(StoreError, match="31 bytes is too short"):
        Seal(b"x" * 31)
