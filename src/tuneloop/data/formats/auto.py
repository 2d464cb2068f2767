"""Format `auto`: finds the format by the shape of the rows, says what it found, and asks when it is not sure."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.core.plugins import listed
from tuneloop.data.annotated import AnnotationFormat
from tuneloop.data.formats import FORMATS, Format, Parts, RowError
from tuneloop.data.turns import dump_text

LOOKED_AT = 200  # rows, spread over the file: a file sorted by kind would fool the first ones
SURE = 0.75
MARGIN = 0.2
WEAK = 0.3


class Auto(Format):
    """Recognises all formats but `table` by the columns of up to 200 rows.

    Two formats about equally likely, or none likely enough, is an error that says how to choose.
    """

    def choose(self, records: Sequence[JsonObject], source: str) -> tuple[str, float]:
        """The name of the format and how sure it is (0 to 1). Raises DataError when it is not sure."""
        sample = records[:: max(1, len(records) // LOOKED_AT)][:LOOKED_AT]
        readers = [(name, FORMATS.make(name)) for name in FORMATS.names() if name != "auto"]
        found = sorted(
            ((reader.recognise(sample), isinstance(reader, AnnotationFormat), name) for name, reader in readers),
            reverse=True,
        )
        (first, tool, name), (second, beside, other) = found[:2]
        # a likeness of 1 is certainty, and an annotation tool's records may hold those of another format as their data
        certain = first == 1 and (first, tool) != (second, beside)
        if first >= SURE and (first - second >= MARGIN or certain):
            return name, first
        columns = list(dict.fromkeys(str(key) for record in sample for key in record)) or ["column"]
        if second >= WEAK and first - second < MARGIN:
            what = f"could be {name} ({first:.2f}) or {other} ({second:.2f})"
            advice = f"`format: {name}`, `format: {other}`, "
        elif first >= WEAK:
            what, advice = f"looks like {name}, but not surely ({first:.2f})", f"`format: {name}`, "
        else:
            what, advice = "has a format that is not known", ""
        raise DataError(
            f"{source} {what}. Its columns: {listed(columns)}. Say in the recipe how to read it: {advice}`format: "
            f"table` with `columns: {{prompt: <column>, response: <column>}}`, or a `template:` such as "
            f'{{prompt: "{{{{ {columns[0]} }}}}", response: "{{{{ {columns[-1]} }}}}"}}. First row: {_short(sample[0])}'
        )

    def parse(self, record: JsonObject) -> Parts:
        try:
            name, _ = self.choose([record], "the row")
        except DataError as error:
            raise RowError(str(error)) from error
        return FORMATS.make(name).parse(record)

    def likeness(self, record: JsonObject) -> float:
        return max(FORMATS.make(name).likeness(record) for name in FORMATS.names() if name != "auto")


def _short(record: JsonObject) -> str:
    text = dump_text(record)
    return text if len(text) <= 200 else f"{text[:200]}…"
