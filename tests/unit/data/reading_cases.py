"""What the tests of reading share: awkward values, a check of pieces, and writers of binary files."""

from __future__ import annotations

import datetime
import pickle
import zipfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import polars as pl
from hypothesis import strategies as st

from tuneloop.data.read import Raw
from tuneloop.data.reading import arrow

Record = dict[str, Any]
FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["a\u2028b", "\r", "\r\n", "a\nb", '"', '""', "一\r二", "\x85", " ", "a,b;c\td", "\ufeff", "\x1c", "问题？"]
)
SIZE = st.integers(1, 4)
TYPES = ' xmlns="http://schemas.openxmlformats.org/package/2006/content-types"'
MAIN = ' xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def check_pieces(raw: Raw, expected: list[Record]) -> None:
    """The pieces cover all rows, know their numbers, and read the same in another process."""
    assert raw.rows == len(expected)
    assert list(raw.records()) == expected
    assert sum(piece.count for piece in raw.pieces) == raw.rows
    for piece in raw.pieces:
        again = pickle.loads(pickle.dumps(piece))
        assert list(again.records()) == expected[piece.first : piece.first + piece.count]
    assert all(record in expected for record in raw.head(3))


def stream(file: Path, frame: pl.DataFrame, batch: int) -> None:
    """An Arrow stream with that many rows a record batch: the messages of one-batch streams, put together."""
    out = b""
    for start in range(0, len(frame), batch):
        one = file.with_suffix(".one")
        frame.slice(start, batch).rechunk().write_ipc_stream(one)
        with one.open("rb") as written:
            wanted = [message for message in arrow._messages(written) if message.rows is not None or not start]
            out += b"".join(arrow._bytes(written, message) for message in wanted)
    file.write_bytes(out + arrow.END)


def workbook(path: Path, sheets: dict[str, list[list[Any]]], hidden: tuple[str, ...] = ()) -> str:
    """A minimal .xlsx: text, numbers, booleans, and dates as Excel keeps them: days since 1899-12-30."""
    names = list(sheets)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", (
            f'<Types{TYPES}><Default Extension="xml" ContentType="application/xml"/><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>'))  # fmt: skip
        file.writestr("_rels/.rels", (
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>'))  # fmt: skip
        listed = "".join(
            f'<sheet name="{escape(name)}" sheetId="{number}" r:id="r{number}"'
            + (' state="hidden"' if name in hidden else "") + "/>" for number, name in enumerate(names, 1)
        )  # fmt: skip
        file.writestr("xl/workbook.xml", f'<workbook{MAIN} xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>')
        targets = "".join(
            f'<Relationship Id="r{number}" Type="{OFFICE}/worksheet" Target="worksheets/s{number}.xml"/>'
            for number in range(1, len(names) + 1)
        )
        styles = f'<Relationship Id="styles" Type="{OFFICE}/styles" Target="styles.xml"/>'
        related = f'<Relationships xmlns="{PACKAGE}">{targets}{styles}</Relationships>'
        file.writestr("xl/_rels/workbook.xml.rels", related)
        file.writestr("xl/styles.xml", f'<styleSheet{MAIN}><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf '
                                       'numFmtId="22"/></cellXfs></styleSheet>')  # fmt: skip
        for number, name in enumerate(names, 1):
            rows = "".join(
                f'<row r="{row}">{"".join(map(cell, cells, ("ABCDEFGHIJ"[i] + str(row) for i in range(10))))}</row>'
                for row, cells in enumerate(sheets[name], 1)
            )
            file.writestr(f"xl/worksheets/s{number}.xml", f"<worksheet{MAIN}><sheetData>{rows}</sheetData></worksheet>")
    return str(path)


def cell(value: Any, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, (int, float)):
        return f'<c r="{place}"><v>{value!r}</v></c>'
    if isinstance(value, datetime.date):
        moment = datetime.datetime(*value.timetuple()[:6])
        days = (moment - datetime.datetime(1899, 12, 30)) / datetime.timedelta(days=1)
        return f'<c r="{place}" s="{2 if isinstance(value, datetime.datetime) else 1}"><v>{days!r}</v></c>'
    if value == "#DIV/0!":
        return f'<c r="{place}" t="e"><v>{value}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
