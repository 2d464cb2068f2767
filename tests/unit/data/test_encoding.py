"""Which encoding a file is in is found out on the whole file, and a wrong one is an error with the line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tuneloop.core.errors import DataError
from tuneloop.data.encoding import decode
from tuneloop.data.read import open_source

Write = Callable[..., str]
SIMPLIFIED = "问题,回答\n退款要几天？,一般需要三到五个工作日。\n怎么修改收货地址,请在订单页面点击修改。\n"
TRADITIONAL = "問題,回答\n退款要幾天？,一般需要三到五個工作天。\n怎麼修改收貨地址,請在訂單頁面點擊修改。\n"
ENGLISH = "question,answer\nHow long?,Three to five days.\n"


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
        (SIMPLIFIED, "utf-16-le", "utf-16-le"),
        (SIMPLIFIED, "utf-16-be", "utf-16-be"),
        (ENGLISH, "utf-16-le", "utf-16-le"),
        (ENGLISH, "utf-8-sig", "utf-8-sig"),
    ],
)
@pytest.mark.parametrize("name", ["faq.csv", "faq.tsv", "faq.jsonl", "faq.json", "faq.txt"])
def test_encodings_are_told_apart(write: Write, name: str, text: str, encoding: str, found: str) -> None:
    names, *rows = [line.split(",") for line in text.splitlines()]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    if name.endswith("tsv"):
        text = text.replace(",", "\t")
    elif name.startswith("faq.json"):
        quoted = [str(record).replace("'", '"') for record in records]
        text = "\n".join(quoted) + "\n" if name.endswith("l") else f"[{','.join(quoted)}]"
    elif name.endswith("txt"):
        records, text = [{"text": line} for line in text.splitlines()], text.replace("\n", "\n\n")
    raw = open_source(write(name, text.encode(encoding)), rows_a_piece=1)
    assert (raw.encoding, list(raw.records())) == (found, records)


@pytest.mark.parametrize("line", TRADITIONAL.splitlines())
def test_even_one_line_of_big5_is_not_taken_for_gb18030(line: str) -> None:
    assert decode(line.encode("big5"), "x", "auto") == (line, "big5")


@pytest.mark.parametrize("line", [*SIMPLIFIED.splitlines(), "带来 (dàilái)", "将3.14弧度转换为角度。"])
def test_even_one_line_of_gb18030_is_recognised(line: str) -> None:
    assert decode(line.encode("gb18030"), "x", "auto") == (line, "gb18030")


def test_the_whole_file_decides_not_its_beginning(write: Write) -> None:
    text = "plain ascii\n" * 50_000 + "最后一行是中文，请处理。\n"
    assert decode(text.encode("gb18030"), "x", "auto") == (text, "gb18030")
    raw = open_source(write("a.tsv", text.encode("gb18030")), rows_a_piece=20_000)
    assert (raw.encoding, raw.rows, len(raw.pieces)) == ("gb18030", 50_000, 3)
    assert list(raw.pieces[2].records())[-1] == {"plain ascii": "最后一行是中文，请处理。"}


@pytest.mark.parametrize("other", ["gb18030", "big5"])
def test_mixed_encodings_name_both_lines(write: Write, other: str) -> None:
    content = '{"text": "第一行是统一码的中文"}\n{"text": "ascii"}\n'.encode() + '{"text": "一般需要三天"}\n'.encode(
        other
    )
    with pytest.raises(DataError, match=r"mixed\.jsonl: mixed encodings: line 1 is UTF-8, line 3 is not"):
        open_source(write("mixed.jsonl", content))


def test_western_text_is_not_read_as_chinese(write: Write) -> None:
    path = write("latin.csv", "prompt,response\nrésumé,café naïve\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"latin\.csv:2: the encoding .*encoding: cp1252"):
        open_source(path)
    assert list(open_source(path, "cp1252").records()) == [{"prompt": "résumé", "response": "café naïve"}]


@pytest.mark.parametrize("name", ["faq.csv", "faq.jsonl"])
def test_a_named_encoding_that_does_not_fit_names_the_line(write: Write, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}:2: not valid ascii"):
        open_source(write(name, "a,b\n一,二\n"), "ascii")


@pytest.mark.parametrize("encoding", ["utf-8", "utf_8", "UTF8", "utf-16-le"])
def test_a_named_encoding_does_not_make_the_mark_a_character(write: Write, encoding: str) -> None:
    data = "\ufeff问题,回答\n一,二\n".encode(encoding)
    assert list(open_source(write("a.csv", data), encoding).records()) == [{"问题": "一", "回答": "二"}]


def test_a_stray_nul_does_not_make_utf16(write: Write) -> None:
    raw = open_source(write("a.csv", b"q,a\nx\0y," + b"1" * 50 + b"\n"))
    assert raw.encoding == "utf-8"
    assert next(raw.records())["q"] == "x\0y"
