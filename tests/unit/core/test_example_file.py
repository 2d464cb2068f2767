"""A file of Examples is the list of its Examples, with file:line for what is none."""

from pathlib import Path

import pytest

from tuneloop.core import digest, jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.core.example_file import ExampleFile

ROWS = [
    Example((Message("user", text), Message("assistant", "答")), Origin("s", i)) for i, text in enumerate("a问\u2028")
]


def written(path: Path, rest: bytes = b"") -> Path:
    jsonl.write_lines(path, [row.to_json() for row in ROWS])
    path.write_bytes(path.read_bytes() + rest)
    return path


@pytest.mark.parametrize("rest", [b"", b"\n  \n\n", jsonl.dump(ROWS[0].to_json())])
def test_it_is_the_list(tmp_path: Path, rest: bytes) -> None:
    file = ExampleFile(path := written(tmp_path / "a.jsonl", rest))
    rows = ROWS + ROWS[:1] * rest.startswith(b"{")
    assert list(file) == rows and len(file) == len(rows) and file[-1] == rows[-1] and file[1:] == rows[1:]
    assert file.digest == digest.of_file(path)
    path.unlink()
    assert file[1] == rows[1]


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert not ExampleFile(tmp_path / "a.jsonl")


@pytest.mark.parametrize(("line", "wrong"), [(b"{", "not valid JSON"), (b"[]", "not an Example"), (b"{}", "not an Ex")])
def test_what_is_no_example_is_named(tmp_path: Path, line: bytes, wrong: str) -> None:
    path = written(tmp_path / "a.jsonl", b"\n" + line)
    with pytest.raises(DataError, match=rf"a\.jsonl:5: {wrong}"):
        list(ExampleFile(path))
    path.write_bytes(line)
    with pytest.raises(DataError, match=rf"a\.jsonl:1: {wrong}"):
        ExampleFile(path)
