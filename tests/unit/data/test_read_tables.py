"""Parquet, Arrow and Excel files: every value as the file holds it, in pieces."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_cases import FIELD, SIZE, check_pieces, stream, workbook

from tuneloop.core.errors import DataError
from tuneloop.data.read import open_source
from tuneloop.data.reading import parquet
from tuneloop.data.reading.place import Place

Record = dict[str, Any]
CALLS = '[{"name":"f","arguments":{"x":1}},{"name":"f","arguments":{"y":[1]}}]'


# -- Parquet and Arrow -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.parquet", "a [1]*.parquet", "a.arrow"])
def test_text_stays_and_dates_become_text(tmp_path: Path, name: str) -> None:
    rows = {
        "prompt": ["01", "问题"],
        "day": [datetime.date(2026, 1, 2), None],
        "price": [decimal.Decimal("1.50"), None],
        "messages": [[{"role": "user", "content": "hi", "name": None}], []],
        "tools": [CALLS, None],
        "bytes": [b"\x89PNG", None],
        "many": [[1, 2], None],
    }
    frame = pl.DataFrame(rows)
    frame.write_parquet(tmp_path / name) if name.endswith("parquet") else frame.write_ipc(tmp_path / name)
    raw = open_source(str(tmp_path / name))
    assert raw.encoding is None
    assert list(raw.records()) == [
        {
            "prompt": "01", "day": "2026-01-02", "price": "1.50", "messages": [{"role": "user", "content": "hi"}],
            "tools": CALLS, "bytes": "<4 bytes>", "many": [1, 2],
        },
        {"prompt": "问题", "day": None, "price": None, "messages": [], "tools": None, "bytes": None, "many": None},
    ]  # fmt: skip


TABLE = st.lists(
    st.fixed_dictionaries({
        "n": st.integers(-(2**63), 2**63 - 1) | st.none(),
        "text": FIELD | st.none(),
        "messages": st.lists(st.fixed_dictionaries({"role": FIELD, "content": FIELD}), max_size=3),
    }),
    min_size=1, max_size=8,
)  # fmt: skip
SCHEMA = {"n": pl.Int64, "text": pl.String, "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String}))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@settings(max_examples=30)
@given(rows=TABLE, size=SIZE)
def test_any_parquet_and_arrow_round_trip(folder: Path, rows: list[Record], size: int) -> None:
    frame = pl.DataFrame(rows, SCHEMA)
    frame.write_parquet(folder / "a.parquet", row_group_size=3)
    frame.write_ipc(folder / "a.arrow")
    stream(folder / "stream.arrow", frame, 2)
    for name in ("a.parquet", "a.arrow", "stream.arrow"):
        check_pieces(open_source(str(folder / name), rows_a_piece=size), rows)


def test_arrow_streams_are_cut_at_batches(tmp_path: Path) -> None:
    stream(tmp_path / "a.arrow", pl.DataFrame({"n": range(10)}), 2)
    raw = open_source(str(tmp_path / "a.arrow"), rows_a_piece=3)
    assert [(piece.first, piece.count) for piece in raw.pieces] == [(0, 4), (4, 4), (8, 2)]
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-60])
    with pytest.raises(DataError, match=r"not a readable Arrow file .*in the midst of a message"):
        open_source(str(tmp_path / "cut.arrow"))


def test_categories_of_arrow_streams_are_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"label": ["好", "差", "好"]}, {"label": pl.Categorical})
    frame.write_ipc_stream(tmp_path / "a.arrow")
    rows = [{"label": label} for label in ("好", "差", "好")]
    check_pieces(open_source(str(tmp_path / "a.arrow"), rows_a_piece=1), rows)


def test_a_parquet_file_is_not_held_as_python_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    to_dicts = pl.DataFrame.to_dicts

    def counting(frame: pl.DataFrame) -> list[Record]:
        held.append(len(frame))
        return to_dicts(frame)

    monkeypatch.setattr(pl.DataFrame, "to_dicts", counting)
    pl.DataFrame({"n": range(5_000)}).write_parquet(tmp_path / "a.parquet")
    assert sum(1 for _ in parquet.survey(Place(str(tmp_path / "a.parquet")), "auto", 20_000).records()) == 5_000
    assert max(held) <= parquet.SLICE


# -- Excel -------------------------------------------------------------------------------------------------------------
def test_excel_values(tmp_path: Path) -> None:
    day, moment = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5)
    path = workbook(tmp_path / "a.xlsx", {
        "问答": [
            [],
            [None, "问题", " 回答 ", "n", "day", "ok", "moment"],
            [None, "退款?", "三天", 3, day, True, moment],
            [None, None, "  "],
            [None, "007", "a\nb", 3.5, None, False, None],
            [None, "#DIV/0!", "x", 2**53, None, None, None],
        ],
        "空": [[]],
    })  # fmt: skip
    raw = open_source(path)
    assert (raw.encoding, raw.pieces[0].kind) == (None, "Excel")
    check_pieces(raw, [
        {"问题": "退款?", "回答": "三天", "n": 3, "day": "2026-01-02", "ok": True, "moment": "2026-01-02T03:04:05"},
        {"问题": "007", "回答": "a\nb", "n": 3.5, "day": None, "ok": False, "moment": None},
        {"问题": None, "回答": "x", "n": 2**53, "day": None, "ok": None, "moment": None},
    ])  # fmt: skip
    assert [type(record["n"]) for record in raw.records()] == [int, float, int]


def test_several_sheets_must_be_told_apart(tmp_path: Path) -> None:
    rows = [["q", "a"], ["1", "2"]]
    path = workbook(tmp_path / "a.xlsx", {"One": rows, "二": [["x"], ["y"]], "title": [["A title"]]})
    with pytest.raises(DataError, match=r"several sheets with rows; name .*: .*a\.xlsx#One, .*a\.xlsx#二$"):
        open_source(path)
    assert list(open_source(f"{path}#二").records()) == [{"x": "y"}]
    with pytest.raises(DataError, match=r"no sheet 'Ones' \(did you mean 'One'\?\); its sheets: One, 二, title"):
        open_source(f"{path}#Ones")
    with pytest.raises(DataError, match="holds no rows"):
        open_source(f"{path}#title")


def test_hidden_sheets_are_not_read_unless_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"list": [["x"], ["y"]], "data": [["q"], ["1"]]}, hidden=("list",))
    raw = open_source(path)
    assert list(raw.records()) == [{"q": "1"}]
    assert raw.notes == (f"{path}: the hidden sheets were not read: list",)
    assert list(open_source(f"{path}#list").records()) == [{"x": "y"}]


def test_excel_columns_need_one_name_each(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": [["My questions"], ["q", "a"], ["1", "2"]]})
    with pytest.raises(DataError, match=r"a\.xlsx#S: cell B2 holds 'a', but its column has no name"):
        open_source(path)
    with pytest.raises(DataError, match=r"a\.xlsx#S, row 1: the column name 'q' stands twice"):
        open_source(workbook(tmp_path / "a.xlsx", {"S": [["q", " q"], ["1", "2"]]}))


@settings(max_examples=30)
@given(st.lists(st.tuples(FIELD, st.integers(-(2**53), 2**53)), min_size=1, max_size=6))
def test_any_excel_round_trips(folder: Path, rows: list[tuple[str, int]]) -> None:
    clean = [("".join(c for c in text if c.isprintable() or c == "\n"), number) for text, number in rows]
    path = workbook(folder / "a.xlsx", {"S": [["q", "n"], *clean]})
    check_pieces(open_source(path), [{"q": q if q.strip() else None, "n": n} for q, n in clean])
