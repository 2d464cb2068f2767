from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core import digest


def test_a_digest_names_its_algorithm_and_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest.of_file(tmp_path / "a") == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert digest.short(digest.of_file(tmp_path / "a")) == hashlib.sha256(b"abc").hexdigest()[:12]


def test_ids_and_cache_keys_are_the_same_in_every_version() -> None:
    assert digest.short(digest.of_value({"b": [1, "巴黎"], "a": None})) == "26fd98261d69"


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), ("1", 1), ([], {}), (None, ""), ([1, 2], [2, 1])])
def test_different_values_differ(one: object, other: object) -> None:
    assert digest.of_value(one) != digest.of_value(other)


def test_the_order_of_keys_does_not_matter() -> None:
    assert digest.of_value({"a": 1, "b": {"c": 2, "d": 3}}) == digest.of_value({"b": {"d": 3, "c": 2}, "a": 1})


def test_half_a_surrogate_pair_has_a_digest_too() -> None:
    assert digest.of_value("\ud83d") != digest.of_value("?")


def test_a_folder_is_its_names_and_bytes_not_its_place_or_times(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below" / "x").write_text("x")
        (tmp_path / name / "y").write_text("y")
    assert digest.of_folder(tmp_path / "one") == digest.of_folder(tmp_path / "two")
    (tmp_path / "two" / "y").rename(tmp_path / "two" / "z")
    assert digest.of_folder(tmp_path / "one") != digest.of_folder(tmp_path / "two")


@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_texts_have_the_same_digest_the_quick_way(value: object) -> None:
    assert digest.of_texts(value) == digest.of_value(value)
