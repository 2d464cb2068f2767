"""Files of every kind and encoding come out exactly as they went in; unusable ones stop with file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.errors import DataError
from tuneloop.data.encoding import decode
from tuneloop.data.read import read

Write = Callable[..., str]
SIMPLIFIED = "问题,回答\n退款要几天？,一般需要三到五个工作日。\n怎么修改收货地址,请在订单页面点击修改。\n"
TRADITIONAL = "問題,回答\n退款要幾天？,一般需要三到五個工作天。\n怎麼修改收貨地址,請在訂單頁面點擊修改。\n"


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        (SIMPLIFIED, "utf-8", "utf-8"),
        (SIMPLIFIED, "utf-8-sig", "utf-8-sig"),
        (SIMPLIFIED, "gb18030", "gb18030"),
        (SIMPLIFIED, "gbk", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (TRADITIONAL, "gb18030", "gb18030"),
        (SIMPLIFIED, "utf-16", "utf-16"),
    ],
)
def test_encodings_are_told_apart(write: Write, text: str, encoding: str, found: str) -> None:
    raw = read(write("faq.csv", text.encode(encoding)))
    assert raw.encoding == found
    expected = text.splitlines()[1].split(",")
    assert list(raw.records[0].values()) == expected


@pytest.mark.parametrize("line", TRADITIONAL.splitlines())
def test_even_one_line_of_big5_is_not_taken_for_gb18030(line: str) -> None:
    assert decode(line.encode("big5"), "x", "auto") == (line, "big5")


@pytest.mark.parametrize("line", [*SIMPLIFIED.splitlines(), "带来 (dàilái)", "将3.14弧度转换为角度。"])
def test_even_one_line_of_gb18030_is_recognised(line: str) -> None:
    assert decode(line.encode("gb18030"), "x", "auto") == (line, "gb18030")


def test_the_whole_file_decides_not_its_beginning() -> None:
    text = "plain ascii\n" * 50_000 + "最后一行是中文，请处理。\n"
    assert decode(text.encode("gb18030"), "x", "auto") == (text, "gb18030")


@pytest.mark.parametrize("other", ["gb18030", "big5"])
def test_mixed_encodings_name_both_lines(write: Write, other: str) -> None:
    content = '{"text": "第一行是统一码的中文"}\n{"text": "ascii"}\n'.encode() + '{"text": "一般需要三天"}\n'.encode(
        other
    )
    with pytest.raises(DataError, match=r"mixed encodings: line 1 is UTF-8, line 3 is not"):
        read(write("mixed.jsonl", content))


def test_western_text_is_not_read_as_chinese(write: Write) -> None:
    content = "prompt,response\nrésumé,café naïve\n".encode("cp1252")
    with pytest.raises(DataError, match=r"latin\.csv:2: the encoding .*encoding: cp1252"):
        read(write("latin.csv", content))
    assert read(write("latin.csv", content), "cp1252").records == [{"prompt": "résumé", "response": "café naïve"}]


def test_a_named_encoding_that_does_not_fit_names_the_line(write: Write) -> None:
    with pytest.raises(DataError, match=r"faq\.csv:2: not valid ascii"):
        read(write("faq.csv", "a,b\n一,二\n"), "ascii")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet"])
def test_an_empty_file_is_an_error(write: Write, name: str) -> None:
    with pytest.raises(DataError, match=r"is empty: 0 bytes"):
        read(write(name, b""))


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", "\n\n"), ("a.json", "[]"), ("a.json", " "), ("a.csv", "a,b\n"), ("a.txt", " \n")]
)
def test_a_file_without_rows_is_an_error(write: Write, name: str, text: str) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read(write(name, text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', r"a\.jsonl:3: not valid JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl:2: expected a JSON object, found list"),
        ("a.json", '[{"a": 1},\n{"a": }]', r"a\.json:2: not valid JSON"),
        ("a.json", '{\n"a": 1,\n"b" 2}', r"a\.json:3: not valid JSON"),
        ("a.json", '{"a": 1}\n{"a": \n', r"a\.json:2: not valid JSON"),
        ("a.jsonl", '{"a": ' + "[" * 200_000, r"a\.jsonl:1: (JSON nested too deeply|not valid JSON)"),
        ("a.json", "[1, 2]", r"a\.json: element 0 is no object"),
        ("a.json", '{"data": [{"a": 1}]}', r"under the key 'data'"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv:3: 3 fields, but 2 columns"),
        ("a.csv", 'a,b\n1,"2\n', r"a\.csv:\d: not valid CSV"),
        ("a.csv", "a,a\n1,2\n", r"a\.csv:1: the column name 'a' stands twice"),
        ("a.tsv", "a\tb\n1\t2\n1\n", r"a\.tsv:3: 1 fields, but 2 columns"),
        ("a.parquet", "no parquet", r"not a readable Parquet file"),
        ("a.xlsx", "x", r"unknown kind of file '\.xlsx'"),
    ],
)
def test_corrupt_files_stop_with_the_line(write: Write, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(name, text))


def test_a_missing_file_names_what_is_there(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", "{}")
    with pytest.raises(DataError, match=r"no such file \(did you mean 'train\.jsonl'\?\); .* holds train\.jsonl"):
        read(str(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match=r"is a folder; .*it holds train\.jsonl"):
        read(str(tmp_path))
    with pytest.raises(DataError, match=r"no such file.* holds train\.jsonl"):
        read(str(tmp_path / "no" / "folder" / "x.jsonl"))


def test_csv_quotes_line_breaks_and_types_survive(write: Write) -> None:
    text = 'q,a\r\n"say ""hi"", please","two\nlines"\r\n01,1.50\r\n'
    assert read(write("a.csv", text)).records == [
        {"q": 'say "hi", please', "a": "two\nlines"},
        {"q": "01", "a": "1.50"},
    ]


def test_csv_fields_may_be_large(write: Write) -> None:
    assert read(write("a.csv", f"q,a\n{'x' * 300_000},1\n")).records[0]["q"] == "x" * 300_000
    assert csv.field_size_limit() == 131_072


def test_tsv_quotes_are_characters(write: Write) -> None:
    text = 'sentence\tlabel\n"it\'s a \tone\n the " quote\t01\n'
    assert read(write("a.tsv", text)).records == [
        {"sentence": "\"it's a ", "label": "one"},
        {"sentence": ' the " quote', "label": "01"},
    ]


def test_json_lines_in_a_json_file_and_unicode_line_separators(write: Write) -> None:
    rows = [{"a": "one\u2028still one\x85"}, {"a": "two"}]
    assert read(write("a.json", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))).records == rows
    assert read(write("a.jsonl", rows)).records == rows


def test_text_files_are_split_at_blank_lines(write: Write) -> None:
    text = "first\r\ndocument\r\n\r\n \r\n第二篇\n  indented\n\n\n"
    assert read(write("a.txt", text)).records == [{"text": "first\ndocument"}, {"text": "第二篇\n  indented"}]


def test_parquet_keeps_text_and_turns_dates_into_text(tmp_path: Path) -> None:
    import datetime

    import polars as pl

    rows = {
        "prompt": ["01", "问题"],
        "day": [datetime.date(2026, 1, 2), None],
        "messages": [[{"role": "user", "content": "hi", "name": None}], []],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    raw = read(str(tmp_path / "a.parquet"))
    assert raw.encoding is None
    first = {"prompt": "01", "day": "2026-01-02", "messages": [{"role": "user", "content": "hi"}]}
    assert raw.records == [first, {"prompt": "问题", "day": None, "messages": []}]


def test_different_arguments_are_not_unified(write: Write) -> None:
    rows: list[Any] = [{"arguments": {"x": 1}}, {"arguments": {"y": [1]}}, {"arguments": "text"}, {"arguments": None}]
    assert read(write("a.jsonl", rows)).records == rows


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5))
def test_any_csv_round_trips(rows: list[tuple[str, str]]) -> None:
    from tuneloop.data.read import _csv

    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("q", "a"), *rows])
    assert [tuple(record.values()) for record in _csv(text.getvalue(), "x.csv")] == rows
