"""Text files come out exactly as they went in, whole or in pieces; unusable ones stop with file and line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_cases import FIELD, SIZE, check_pieces

from tuneloop.core.errors import DataError
from tuneloop.data.config import SourceConfig
from tuneloop.data.read import Raw, existing, input_files, open_source
from tuneloop.data.source import recognise

Write = Callable[..., str]
Record = dict[str, Any]


def read(path: str, encoding: str = "auto") -> list[Record]:
    return list(open_source(path, encoding).records())


# -- unusable files ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.arrow", "a.xlsx", "a.zip"]
)
def test_an_empty_file_is_an_error(write: Write, name: str) -> None:
    with pytest.raises(DataError, match=r"is empty: 0 bytes"):
        open_source(write(name, b""))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "\n\n"),
        ("a.json", "[]"),
        ("a.json", " [ ] "),
        ("a.json", " "),
        ("a.csv", "a,b\n"),
        ("a.csv", "\n\n"),
        ("a.tsv", "\n"),
        ("a.txt", " \n"),
        ("a.jsonl", "\ufeff"),
    ],
)
def test_a_file_without_rows_is_an_error(write: Write, name: str, text: str) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        open_source(write(name, text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', r"a\.jsonl:3: not valid JSON .*The line begins: "),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"a\.jsonl:2: expected a JSON object, found list"),
        ("a.jsonl", '{"a": NaN}\n', r"a\.jsonl:1: not valid JSON"),
        ("a.jsonl", '{"a": NaN, "b": 12345678901234567890}\n', r"a\.jsonl:1: not valid JSON \(NaN is no JSON number\)"),
        ("a.json", '[{"a": 1},\n{"a": }]', r"a\.json:2: not valid JSON .* at column 7"),
        ("a.json", '[{"a": 1},\n{"a": 2', r"a\.json:2: not valid JSON"),
        ("a.json", '[{"a": 1},\n', r"a\.json:\d: not valid JSON \(the array is not closed"),
        ("a.json", '[{"a": 1},\n]', r"a\.json:2: not valid JSON \(a value is missing after the comma"),
        ("a.json", '[{"a": 1}\n{"a": 2}]', r"a\.json:2: not valid JSON \(a comma is missing"),
        ("a.json", '[{"a": 1}] {}', r"a\.json:1: not valid JSON \(text after the end of the array"),
        ("a.json", '[{"a": Infinity}]', r"a\.json:1: not valid JSON \(Infinity is no JSON number"),
        ("a.json", '{\n"a": 1,\n"b" 2}', r"a\.json:3: not valid JSON"),
        ("a.json", '{"a": 1}\n{"a": \n', r"a\.json:2: not valid JSON"),
        ("a.json", '{"a": 1}\n, 2', r"a\.json:2: not valid JSON \(text after the end"),
        ("a.jsonl", '{"a": ' + "[" * 200_000, r"a\.jsonl:1: JSON nested too deeply"),
        ("a.jsonl", '{"a": ' + "[" * 2_000 + "]" * 2_000 + "}", r"a\.jsonl:1: JSON nested too deeply"),
        ("a.json", '[{},\n{"a": ' + "[" * 200_000, r"a\.json:2: JSON nested too deeply"),
        ("a.json", "[1, 2]", r"a\.json: element 0 is no object but int: '1'"),
        ("a.json", '[{}, "x"]', r"a\.json: element 1 is no object but str"),
        ("a.json", '"text"', r"a\.json: expected an array of objects, found str"),
        ("a.json", '{"data": [{"a": 1}]}', r"under the key 'data': write the path as .*a\.json#data"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv:3: 3 fields, but 2 columns"),
        ("a.csv", 'a,b\n"1\n1",2\n1,2,3\n', r"a\.csv:4: 3 fields, but 2 columns"),
        ("a.csv", 'a,b\n1,"2\n\n\n', r"a\.csv:2: not valid CSV .* begins here"),
        ("a.csv", 'a,b\n1,"2"3\n', r"a\.csv:2: not valid CSV"),
        ("a.csv", "a,a\n1,2\n", r"a\.csv:1: the column name 'a' stands twice"),
        ("a.csv", "a,,b\n1,2,3\n", r"a\.csv:1: a column has no name"),
        ("a.tsv", "a\tb\n1\t2\n1\n", r"a\.tsv:3: 1 fields, but 2 columns"),
        ("a.parquet", "no parquet", r"not a readable Parquet file"),
        ("a.arrow", "no arrow file", r"not a readable Arrow file"),
        ("a.arrow", "ARROW1\0\0 and no more", r"not a readable Arrow file"),
        ("a.xlsx", "no workbook", r"not a readable Excel or OpenDocument file"),
        ("a.zip", "no archive", r"not a readable zip archive"),
        ("a.jsonl.gz", "not packed", r"a\.jsonl\.gz cannot be read: Not a gzipped file"),
        ("a.docx", "x", r"unknown kind of file '\.docx'; known: \.jsonl, "),
        ("a.parquet.gz", "x", r"unknown kind of file '\.gz'"),
    ],
)
def test_corrupt_files_stop_with_the_line(write: Write, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(name, text))


def test_a_missing_file_names_what_is_there(write: Write, tmp_path: Path) -> None:
    write("train.jsonl", "{}")
    with pytest.raises(DataError, match=r"no such file \(did you mean 'train\.jsonl'\?\); .* holds train\.jsonl"):
        open_source(str(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match=r"no such file.* holds train\.jsonl"):
        open_source(str(tmp_path / "no" / "folder" / "x.jsonl"))
    assert existing(str(tmp_path / "train.jsonl")) == tmp_path / "train.jsonl"
    assert input_files(str(tmp_path)) == [tmp_path / "train.jsonl"]


def test_a_file_that_changed_after_the_survey_is_noticed(write: Write) -> None:
    raw = open_source(write("a.jsonl", [{"a": 1}, {"a": 2}]))
    write("a.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match=r"a\.jsonl changed while it was being read: 1 rows where 2 were"):
        list(raw.records())


def test_errors_in_later_pieces_name_the_line_of_the_file(write: Write) -> None:
    lines = ['{"a": 1}', "", '{"a": 2}', '{"a": 3}', '{"a": }']
    raw = open_source(write("a.jsonl", "\n".join(lines)), rows_a_piece=2)
    assert [piece.line for piece in raw.pieces] == [1, 4]
    with pytest.raises(DataError, match=r"a\.jsonl:5: not valid JSON"):
        list(raw.pieces[1].records())


# -- what each kind holds ----------------------------------------------------------------------------------------------
def test_csv_quotes_line_breaks_and_types_survive(write: Write) -> None:
    text = 'q,a\r\n"say ""hi"", please","two\nlines"\r\n01,1.50\r\n'
    assert read(write("a.csv", text)) == [{"q": 'say "hi", please', "a": "two\nlines"}, {"q": "01", "a": "1.50"}]


def test_csv_fields_may_be_large(write: Write) -> None:
    raw = open_source(write("a.csv", f"q,a\n{'x' * 300_000},1\n"))
    records = raw.records()
    assert next(records)["q"] == "x" * 300_000
    assert csv.field_size_limit() == 131_072, "while a reader is under way as well"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("q;a\n1,5;2\n", [{"q": "1,5", "a": "2"}]),
        ("q\ta\n1\t2\n", [{"q": "1", "a": "2"}]),
        ("sep=;\nq;a\n1;2\n", [{"q": "1", "a": "2"}]),
        ("\n\nq,a\n\n1,2\n\n", [{"q": "1", "a": "2"}]),
        (" q , a\n1,2", [{"q": "1", "a": "2"}]),
        ("q,a\r1,2\r3,4", [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]),
        (
            'q,a\n"x\ry",2\r\n3,4\r5,6\n7,8',
            [{"q": "x\ry", "a": "2"}, *({"q": q, "a": a} for q, a in ("34", "56", "78"))],
        ),
    ],
)
def test_csv_as_programs_write_it(write: Write, text: str, rows: list[Record]) -> None:
    for size in (1, 2, 100):
        check_pieces(open_source(write("a.csv", text), rows_a_piece=size), rows)


def test_tsv_quotes_are_characters(write: Write) -> None:
    text = 'sentence\tlabel\n"it\'s a \tone\n\n the " quote\t01\n'
    rows = [{"sentence": "\"it's a ", "label": "one"}, {"sentence": ' the " quote', "label": "01"}]
    check_pieces(open_source(write("a.tsv", text), rows_a_piece=1), rows)


def test_tsv_with_a_quoted_header_is_quoted(write: Write) -> None:
    path = write("a.tsv", '"id"\t"text"\n1\t"two\nlines ""and\ta tab"""\n')
    check_pieces(open_source(path), [{"id": "1", "text": 'two\nlines "and\ta tab"'}])


def test_json_lines_in_a_json_file_and_unicode_line_separators(write: Write) -> None:
    rows = [{"a": "one\u2028still one\x85"}, {"a": "two"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert read(write("a.json", lines)) == rows
    assert read(write("b.jsonl", rows)) == rows
    assert read(write("c.json", rows)) == rows


@pytest.mark.parametrize("digits", [18, 19, 20, 40])
def test_integers_of_any_size_are_read_exactly_wherever_they_stand(write: Write, digits: int) -> None:
    rows = [{"a": "x" * shift, "b": int("9" * digits)} for shift in range(5)]
    for row in rows:
        path = write("a.jsonl", [row, {"a": 1}])
        assert [*map(repr, read(path))] == [repr(row), repr({"a": 1})]
    raw = open_source(write("b.jsonl", "\n\u3000\n" + "\n \n".join(map(json.dumps, rows))))
    assert raw.pieces[0].pick([0, 3, 4]) == [rows[0], rows[3], rows[4]]


def test_one_json_object_is_one_row_or_holds_the_rows_under_a_key(write: Write) -> None:
    assert read(write("a.json", '{"messages": [{"role": "user"}]}')) == [{"messages": [{"role": "user"}]}]
    assert read(write("a.json", '{"id": 1, "rows": [{"a": 1}]}')) == [{"id": 1, "rows": [{"a": 1}]}]
    path = write("a.json", '{"version": 1, "rows": [{"a": 1}, {"a": 2}]}')
    check_pieces(open_source(f"{path}#rows"), [{"a": 1}, {"a": 2}])
    assert existing(f"{path}#rows") == Path(path)
    with pytest.raises(DataError, match=r"under the key 'row' \(did you mean 'rows'\?\); lists of objects .*: rows"):
        open_source(f"{path}#row")
    with pytest.raises(DataError, match=r"a \.csv file has no parts; write the path without '#x'"):
        open_source(f"{write('a.csv', 'a,b')}#x")


def test_a_name_may_hold_a_number_sign(write: Write) -> None:
    assert read(write("a#b.jsonl", [{"a": 1}])) == [{"a": 1}]
    assert read(f"{write('a#c.json', json.dumps({'x': [{'a': 1}]}))}#x") == [{"a": 1}]


def test_text_files_are_split_at_blank_lines(write: Write) -> None:
    text = "first\r\ndocument\r\n\r\n \r\n第二篇\n  indented\n\n\n\u3000\n\n  third\n"
    rows = [{"text": "first\ndocument"}, {"text": "第二篇\n  indented"}, {"text": "  third"}]
    for size in (1, 2, 9):
        check_pieces(open_source(write("a.txt", text), rows_a_piece=size), rows)


def test_different_arguments_are_not_unified(write: Write) -> None:
    rows: list[Any] = [{"arguments": {"x": 1}}, {"arguments": {"y": [1]}}, {"arguments": "text"}, {"arguments": None}]
    assert read(write("a.jsonl", rows)) == rows
    assert read(write("a.json", rows)) == rows


def test_large_integers_and_halves_of_surrogate_pairs(write: Write) -> None:
    lines = ['{"a": 123456789012345678901234567890}', '{"a": "\\ud83d"}', '{"a": "\\ud83d\\ude00"}']
    rows = [{"a": 123456789012345678901234567890}, {"a": "\ud83d"}, {"a": "😀"}]
    assert read(write("a.jsonl", "\n".join(lines))) == rows
    assert read(write("a.json", f"[{','.join(lines)}]")) == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_a_hundred_thousand_columns(write: Write, name: str) -> None:
    names = [f"c{number}" for number in range(100_000)]
    rows = [dict.fromkeys(names, "1"), dict.fromkeys(names, "二")]
    mark = "\t" if name.endswith("tsv") else ","
    table = "\n".join(mark.join(cells) for cells in (names, *(row.values() for row in rows)))
    assert read(write(name, rows if "json" in name else table)) == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"])
def test_a_line_of_ten_megabytes(write: Write, name: str) -> None:
    long = "很长的一行 " * 600_000
    content: dict[str, Any] = {"jsonl": [{"text": long}], "json": [{"text": long}, {"text": "b"}]}
    written = content.get(name[2:], f"text\n{long}\n" if name.endswith("sv") else long)
    assert read(write(name, written))[0]["text"] == long


def test_gzipped_files(tmp_path: Path) -> None:
    import gzip

    rows = [{"a": f"{number}"} for number in range(5)]
    texts = {
        "a.jsonl.gz": "\n".join(map(json.dumps, rows)),
        "b.JSON.GZ": json.dumps(rows),
        "c.csv.gz": "a\n0\n1\n2\n3\n4",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        raw = open_source(str(tmp_path / name), rows_a_piece=2)
        check_pieces(raw, rows)
        assert len(raw.pieces) == 1, "what is packed cannot be entered in the middle"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 9999)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        open_source(str(tmp_path / "a.jsonl.gz"))


# -- pieces ------------------------------------------------------------------------------------------------------------
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | FIELD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(FIELD, VALUE, max_size=3), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


def surveyed(file: Path, data: bytes, size: int) -> Raw:
    file.write_bytes(data)
    return open_source(str(file), rows_a_piece=size)


@settings(max_examples=50)
@given(rows=OBJECTS, size=SIZE, ends=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]), mark=st.booleans())
def test_any_json_lines_round_trip(folder: Path, rows: list[Record], size: int, ends: str, mark: bool) -> None:
    text = ends.join(json.dumps(row, ensure_ascii=False) for row in rows)
    check_pieces(surveyed(folder / "a.jsonl", text.encode("utf-8-sig" if mark else "utf-8"), size), rows)


@settings(max_examples=50)
@given(
    rows=OBJECTS, size=SIZE, indent=st.sampled_from([None, 0, 2]), ascii_=st.booleans(), block=st.integers(1, 30),
    mark=st.booleans(),
)  # fmt: skip
def test_any_json_array_round_trips(
    folder: Path, rows: list[Record], size: int, indent: int | None, ascii_: bool, block: int, mark: bool
) -> None:
    from tuneloop.data.reading import json_file

    text = json.dumps(rows, ensure_ascii=ascii_, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_file, "BLOCK", block)  # values and characters are cut anywhere
        check_pieces(surveyed(folder / "a.json", text.encode("utf-8-sig" if mark else "utf-8"), size), rows)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8), SIZE, st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)  # fmt: skip
def test_any_csv_round_trips(
    folder: Path, rows: list[tuple[str, str]], size: int, ends: str, mark: str, encoding: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ends, delimiter=mark).writerows([("q", "a"), *rows])
    expected = [{"q": q, "a": a} for q, a in rows]
    check_pieces(surveyed(folder / "a.csv", text.getvalue().encode(encoding), size), expected)


@settings(max_examples=50)
@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=8), SIZE, st.sampled_from(["\n", "\r\n"]))
def test_any_tsv_round_trips(folder: Path, rows: list[tuple[str, str]], size: int, ends: str) -> None:
    clean = [tuple(one_line(field) for field in row) for row in rows]
    text = ends.join(["q\ta", *("\t".join(row) for row in clean)])
    check_pieces(surveyed(folder / "a.tsv", text.encode(), size), [{"q": q, "a": a} for q, a in clean])


def one_line(field: str) -> str:
    for mark in "\t\r\n":
        field = field.replace(mark, "|")
    return field


@settings(max_examples=50)
@given(st.lists(FIELD, min_size=1, max_size=8), SIZE, st.sampled_from(["\n\n", "\n \n\t\n", "\r\n\r\n"]))
def test_any_documents_round_trip(folder: Path, documents: list[str], size: int, between: str) -> None:
    clean = ["first", *(one_line(text) for text in documents)]
    expected = [{"text": text} for text in clean if text.strip()]
    check_pieces(surveyed(folder / "a.txt", between.join(clean).encode(), size), expected)


def test_pieces_begin_where_they_should(write: Write) -> None:
    rows = [{"n": number} for number in range(10)]
    raw = open_source(write("a.jsonl", rows), rows_a_piece=4)
    assert [(piece.first, piece.count, piece.kind) for piece in raw.pieces] == [
        (0, 4, "JSON Lines"),
        (4, 4, "JSON Lines"),
        (8, 2, "JSON Lines"),
    ]
    assert raw.pieces[1].pick([1, 3]) == [{"n": 5}, {"n": 7}]


@pytest.mark.parametrize(("rows", "size"), [(150, 20), (1000, 10_000), (1000, 60), (1000, 3)])
def test_the_head_is_spread_over_the_file(write: Write, rows: int, size: int) -> None:
    raw = open_source(write("a.jsonl", [{"n": number} for number in range(rows)]), rows_a_piece=size)
    head = [record["n"] for record in raw.head(200)]
    assert head == sorted(set(head))
    assert 100 < len(head) <= 200
    assert head[0] == 0 and head[-1] >= 0.9 * rows and max(b - a for a, b in pairwise(head)) <= 20


SURVEY = """
import resource, sys
from tuneloop.data.read import open_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
raw = open_source(sys.argv[1])
rows = sum(1 for _ in raw.records())
assert rows == raw.rows == int(sys.argv[2]) and len(raw.head()) > 100
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("name", "megabytes"), [("a.jsonl", 100), ("a.csv", 40), ("a.json", 40)])
def test_large_files_take_little_memory(tmp_path: Path, name: str, megabytes: int) -> None:
    row = {"prompt": "退款要几天？" * 30, "response": "一般需要三到五个工作日。" * 60}
    line = json.dumps(row, ensure_ascii=False) if "json" in name else ",".join(row.values())
    count = megabytes * 1_000_000 // len(line.encode())
    ends = {"a.jsonl": ("", "\n", ""), "a.csv": ("prompt,response\n", "\n", ""), "a.json": ("[", ",\n", "]")}[name]
    file = tmp_path / name
    file.write_text(ends[0] + ends[1].join([line] * count) + ends[2], "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SURVEY, str(file), str(count)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30_000, "kilobytes"


def test_a_hundred_thousand_columns_are_read_and_not_all_listed(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(100_000)]
    text = f"prompt,response,{','.join(names)}\n" + f"q,a,{','.join('1' * len(names))}\n" * 2
    (tmp_path / "wide.csv").write_text(text)
    found = recognise(SourceConfig(path=str(tmp_path / "wide.csv")), 0).recognition
    assert len(found.meta) == 100_000
    assert "c0, c1," in str(found) and "c19 and 99,980 more" in str(found) and len(str(found)) < 1000
