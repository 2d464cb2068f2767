from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(anything)
def test_every_value_survives_exactly(value: Any) -> None:
    back = jsonl.parse(jsonl.dump(value))
    assert back == value
    assert json.dumps(back) == json.dumps(value)  # 1 stays 1 and 1.0 stays 1.0
    quick = jsonl.parse_dumped(jsonl.dump({"id": value, "big": 2**70}))
    assert json.dumps([quick, jsonl.parse_dumped(jsonl.dump({"id": value}))]) == json.dumps(
        [{"id": value, "big": 2**70}, {"id": value}]
    )


@pytest.mark.parametrize("number", [2**63, 2**64, 10**40, -(10**40), 12345678901234567890123])
def test_big_integers_stay_integers(number: int) -> None:
    assert jsonl.parse(f'{{"n": {number}}}') == {"n": number}
    assert type(jsonl.parse(jsonl.dump([number]))[0]) is int


@given(
    st.lists(st.text(st.sampled_from('",[]\\\n a中')) | st.text(st.characters(exclude_categories=["Cs"])), max_size=200)
)
def test_texts_are_escaped_together_as_each_by_itself(texts: list[str]) -> None:
    assert [b'"' + text + b'"' for text in jsonl.escaped(texts)] == [jsonl.dump(text) for text in texts]


def test_halves_of_surrogate_pairs_are_not_escaped_together() -> None:
    with pytest.raises(TypeError):
        jsonl.escaped(["a", "\ud83d"])


def test_half_a_surrogate_pair_is_read_and_written(tmp_path: Path) -> None:
    assert jsonl.parse(r'{"a": "\ud83d"}') == {"a": "\ud83d"}
    assert jsonl.parse(r'{"a": "\ud83d\ude00"}') == {"a": "😀"}
    jsonl.write_lines(tmp_path / "a.jsonl", [{"a": "\ud83d"}])
    assert list(jsonl.read_lines(tmp_path / "a.jsonl")) == [{"a": "\ud83d"}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": 1} {"b": 2}',
        "[1,]",
        "{'a': 1}",
        "NaN",
        "[Infinity]",
        "[NaN, 12345678901234567890]",
        b"\xff",
        "01",
    ],
)
def test_what_is_not_exactly_one_json_value_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        jsonl.parse(text)


def test_a_corrupt_line_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": }\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:3: not valid JSON"):
        list(jsonl.read_lines(path))
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: not valid JSON .*utf-8"):
        list(jsonl.read_lines(path))
    path.write_text("{}\n[1]\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: expected a JSON object, found list"):
        list(jsonl.read_lines(path))
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.jsonl: not valid JSON"):
        jsonl.read(path)


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert jsonl.write_lines(path, [{"a": 1}]) == 1

    def broken() -> Any:
        yield {"a": 2}
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        jsonl.write_lines(path, broken())
    assert list(jsonl.read_lines(path)) == [{"a": 1}]
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    jsonl.write_text(path, "old")
    with jsonl.replacing(path, "w") as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


def test_indented_files_keep_chinese_readable(tmp_path: Path) -> None:
    jsonl.write(tmp_path / "a.json", {"城市": "巴黎"})
    assert "巴黎" in (tmp_path / "a.json").read_text("utf-8")
    assert jsonl.read(tmp_path / "a.json") == {"城市": "巴黎"}
