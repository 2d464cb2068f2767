"""Archives, folders and hub data sets: several files as one source, numbered through."""

from __future__ import annotations

import json
import multiprocessing
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_cases import SIZE, check_pieces, stream, workbook

from tuneloop.core.errors import DataError, MissingExtra
from tuneloop.data.read import existing, input_files, open_source
from tuneloop.data.reading import archive
from tuneloop.data.reading.hub import parse_id

Write = Callable[..., str]
Record = dict[str, Any]


def lines(rows: list[Record]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def zipped(path: Path, members: dict[str, str | bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


# -- archives ----------------------------------------------------------------------------------------------------------
def test_records_of_an_archive_know_their_file(tmp_path: Path) -> None:
    members = {
        "out/bob.jsonl": lines([{"id": 1}, {"id": 2}]),
        "out/": b"",
        "alice.jsonl": lines([{"id": 1}]),
        "empty.jsonl": b"",
        "README.md": "about",
        "__MACOSX/._alice.jsonl": b"\0\1",
        ".DS_Store": b"\0",
    }
    raw = open_source(zipped(tmp_path / "a.zip", members), rows_a_piece=1)
    check_pieces(raw, [
        {"id": 1, "__member__": "alice.jsonl"},
        {"id": 1, "__member__": "out/bob.jsonl"}, {"id": 2, "__member__": "out/bob.jsonl"},
    ])  # fmt: skip
    assert raw.notes == (f"{tmp_path / 'a.zip'}: not read: README.md",)
    assert raw.encoding == "utf-8"


def test_many_small_files_share_pieces(tmp_path: Path, write: Write) -> None:
    members = {f"{number:04}.json": json.dumps({"n": number}) for number in range(2_000)}
    raw = open_source(zipped(tmp_path / "a.zip", members), rows_a_piece=700)
    assert [(piece.first, piece.count, piece.kind) for piece in raw.pieces] == [
        (0, 700, "files"), (700, 700, "files"), (1_400, 600, "files"),
    ]  # fmt: skip
    check_pieces(raw, [{"n": number, "__member__": name} for number, name in enumerate(members)])
    (tmp_path / "in").mkdir()
    for number in range(3):
        write(f"in/{number}.jsonl", [{"n": number}] * 2)
    raw = open_source(f"{tmp_path}/in", rows_a_piece=4)
    assert [(piece.first, piece.count) for piece in raw.pieces] == [(0, 4), (4, 2)]
    check_pieces(raw, [{"n": number} for number in (0, 0, 1, 1, 2, 2)])


def read_all(piece: Any) -> list[Record]:
    return list(piece.records())


def test_an_archive_in_several_processes(tmp_path: Path) -> None:
    rows = [{"n": number} for number in range(3_000)]
    raw = open_source(zipped(tmp_path / "a.zip", {f"{m}.jsonl": lines(rows) for m in range(4)}), rows_a_piece=100)
    next(raw.records())  # the archive is open in this process when the others begin
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(read_all, raw.pieces, chunksize=1)
    assert [len(part) for part in found] == [3_000] * 4


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(), min_size=1, max_size=4), min_size=1, max_size=4), SIZE)
def test_any_archive_round_trips(tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], size: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    for suffix, write in {
        ".jsonl": lines, ".json": json.dumps,
        ".csv": lambda rows: "n\n" + "".join(f"{row['n']}\n" for row in rows),
    }.items():  # fmt: skip
        kind = str if suffix == ".csv" else int
        rows = {f"{number}{suffix}": [{"n": kind(n)} for n in found] for number, found in enumerate(files)}
        path = zipped(folder / "a.zip", {name: write(found) for name, found in rows.items()})
        expected = [{**row, "__member__": name} for name, found in rows.items() for row in found]
        check_pieces(open_source(path, rows_a_piece=size), expected)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_in_chinese_archives(tmp_path: Path, encoding: str) -> None:
    """Windows writes names in GBK and says nothing; Python then takes them for cp437."""
    path = Path(zipped(tmp_path / "a.zip", {"zhangsan.jsonl": lines([{"id": 1}])}))
    spelt = "张三".encode(encoding).ljust(8, b"_")
    path.write_bytes(path.read_bytes().replace(b"zhangsan", spelt))
    expected = f"{spelt.decode(encoding)}.jsonl"
    assert list(open_source(str(path)).records()) == [{"id": 1, "__member__": expected}]


def test_an_archive_writes_nothing_outside(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ("../evil.jsonl", "/tmp/evil.jsonl")
    raw = open_source(zipped(folder / "a.zip", {name: lines([{"id": 1}]) for name in names}))
    assert {record["__member__"] for record in raw.records()} == set(names)
    assert list(tmp_path.rglob("*")) == [folder, folder / "a.zip"], "members are read in place"


def test_zip_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNSUSPICIOUS", 1 << 20)
    path = zipped(tmp_path / "a.zip", {"a.jsonl": b" " * (4 << 20)})
    with pytest.raises(DataError, match=r"would unpack to 0\.0 GiB, [\d,]+ times its size, .* zip bomb"):
        open_source(path)
    monkeypatch.setattr(archive, "LARGEST", 1 << 10)
    with pytest.raises(DataError, match="zip bomb"):
        open_source(zipped(tmp_path / "b.zip", {"a.jsonl": lines([{"id": n} for n in range(1000)])}))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, r"holds no file of the kinds \.csv, .*; it holds nothing"),
        ({"a.xlsx": "x", "b.jsonl.gz": "x"}, r"it holds a\.xlsx, b\.jsonl\.gz"),
        ({"a.jsonl": "{}", "b.csv": "a"}, r"several kinds \(\.csv, \.jsonl\); unpack it"),
        ({"a.jsonl": "{}\n{"}, r"a\.zip/a\.jsonl:2: not valid JSON"),
        ({"a.csv": "a,b\n1"}, r"a\.zip/a\.csv:2: 1 fields, but 2 columns"),
        ({"a.jsonl": ""}, "holds no rows"),
    ],
)
def test_archives_that_cannot_be_read(tmp_path: Path, members: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(open_source(zipped(tmp_path / "a.zip", members)).records())


def test_protected_and_damaged_archives(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "a.zip", {"a.jsonl": lines([{"id": n} for n in range(500)])}))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"damaged\.zip cannot be read"):
        open_source(str(tmp_path / "damaged.zip"))
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the local header
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="protected by a password"):
        open_source(str(path))
    with pytest.raises(DataError, match="no part of a zip archive can be named"):
        open_source(f"{path}#x")


# -- folders -----------------------------------------------------------------------------------------------------------
def test_shards_are_read_in_the_order_of_their_numbers(write: Write, tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(f"part{number}.jsonl", [{"n": number}, {"n": number + 0.5}])
    write("README.md", "about")
    write(".hidden.jsonl", [{"n": 0}])
    raw = open_source(str(tmp_path), rows_a_piece=1)
    check_pieces(raw, [{"n": n} for n in (1, 1.5, 2, 2.5, 10, 10.5)])
    assert input_files(str(tmp_path)) == [tmp_path / f"part{n}.jsonl" for n in (1, 2, 10)]
    assert existing(str(tmp_path)) == tmp_path


def test_splits_of_a_folder_must_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pl.DataFrame({"file": [name]}).write_parquet(tmp_path / "data" / f"{name}.parquet")
    (tmp_path / "README.md").write_text("about")
    with pytest.raises(DataError, match=r"several data sets \(test, train\); .*#test, .*#train, or .*#\* for all"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"has no 'tarin' \(did you mean 'train'\?\)"):
        open_source(f"{tmp_path}#tarin")
    expected = [{"file": f"train-0000{n}-of-00002"} for n in (0, 1)]
    check_pieces(open_source(f"{tmp_path}#train"), expected)
    assert open_source(f"{tmp_path}#*").rows == 3


def test_splits_in_subfolders(write: Write, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        write(f"{split}/0000.jsonl", [{"split": split}])
    assert list(open_source(f"{tmp_path}#validation").records()) == [{"split": "validation"}]


def test_folders_without_clear_data(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder without a file of the kinds .*; it is empty"):  # noqa: RUF043
        open_source(str(tmp_path))
    write("notes.md", "x")
    with pytest.raises(DataError, match=r"it holds notes\.md"):
        open_source(str(tmp_path))
    write("a1.jsonl", [{}])
    write("a2.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"files of several kinds \(\.csv, \.jsonl\); name each"):
        open_source(str(tmp_path))


def test_an_empty_shard_is_named(write: Write, tmp_path: Path) -> None:
    write("a1.jsonl", [{"n": 1}])
    write("a2.jsonl", b"")
    with pytest.raises(DataError, match=r"a2\.jsonl is empty"):
        open_source(str(tmp_path))


def test_workbooks_of_a_folder(tmp_path: Path) -> None:
    for number in (1, 2):
        workbook(tmp_path / f"faq{number}.xlsx", {"S": [["q"], [f"{number}"]]})
    check_pieces(open_source(str(tmp_path)), [{"q": "1"}, {"q": "2"}])


def save(folder: Path, rows: list[Record], shards: int) -> None:
    """What `datasets.save_to_disk` writes."""
    folder.mkdir(parents=True)
    size = -(-len(rows) // shards)
    names = [f"data-{number:05}-of-{shards:05}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        stream(folder / name, pl.DataFrame(rows[number * size : (number + 1) * size]), 2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text('{"features": {}}')


def test_a_saved_dataset(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"问{n}"}], "tools": "[{}]"} for n in range(9)]
    save(tmp_path / "saved" / "train", rows, 2)
    save(tmp_path / "saved" / "test", rows[:1], 1)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    check_pieces(open_source(f"{tmp_path}/saved#train", rows_a_piece=2), rows)
    check_pieces(open_source(f"{tmp_path}/saved/train", rows_a_piece=100), rows)
    with pytest.raises(DataError, match=r"holds the splits train, test; name .*saved#train, .*saved#test"):
        open_source(f"{tmp_path}/saved")
    with pytest.raises(DataError, match=r"no split 'tset' \(did you mean 'test'\?\)"):
        open_source(f"{tmp_path}/saved#tset")
    with pytest.raises(DataError, match=r"holds a single data set, no splits: write the path without '#x'"):
        open_source(f"{tmp_path}/saved/train#x")
    (tmp_path / "saved/train/data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"not complete: data-00001-of-00002\.arrow is missing"):
        open_source(f"{tmp_path}/saved#train")


# -- the hub -----------------------------------------------------------------------------------------------------------
def test_hub_ids() -> None:
    found = parse_id("hf:org/name?config=main&folder=data/en", "train")
    assert (found.name, found.split, found.options) == ("org/name", "train", {"config": "main", "folder": "data/en"})
    with pytest.raises(DataError, match=r"unknown option 'confg' \(did you mean 'config'\?\)"):
        parse_id("hf:org/name?confg=main", None)
    with pytest.raises(DataError, match="write a hub data set as hf:org/name"):
        parse_id("hf:https://example.org/x", None)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"reading hf:org/name .* pip install 'tuneloop\[datasets\]'"):
        open_source("hf:org/name#train")


def test_hub_rows_are_fetched_once_up_to_the_limit(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    for module in ("datasets.config", "huggingface_hub.constants"):  # both read the environment when imported: too late
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)  # the library takes a local folder for an id as well
    (tmp_path / "org" / "name").mkdir(parents=True)
    write("org/name/train.jsonl", [{"n": n, "text": f"问{n}"} for n in range(9)])
    raw = open_source("hf:org/name#train", limit=4, rows_a_piece=3)
    check_pieces(raw, [{"n": n, "text": f"问{n}"} for n in range(4)])
    assert (raw.path, raw.notes) == ("hf:org/name#train", ())
    write("org/name/train.jsonl", [{"n": -1}])
    again = open_source("hf:org/name#train", limit=4)
    assert again.rows == 4
    assert "as fetched on" in again.notes[0]
    assert input_files("hf:org/name#train", limit=4) == [Path(raw.pieces[0].path)]
    (tmp_path / "org/name/data/en").mkdir(parents=True)
    write("org/name/data/en/test.jsonl", [{"n": 7}])
    assert list(open_source("hf:org/name?folder=data/en").records()) == [{"n": 7}]
    write("org/name/data/en/train.jsonl", [{"n": 8}])
    with pytest.raises(DataError, match=r"has the splits .*train.*; name .*: hf:org/name\?folder=data/en#t"):
        open_source("hf:org/name?folder=data/en", limit=1)
