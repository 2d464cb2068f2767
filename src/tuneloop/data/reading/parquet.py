"""Parquet, and Arrow files of the random-access form: read by slices of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tuneloop.core.conversation import JsonObject
from tuneloop.core.errors import DataError
from tuneloop.data.reading import Piece, Raw
from tuneloop.data.reading.place import Place

if TYPE_CHECKING:
    import polars as pl

SLICE = 1_000  # rows that are Python objects at the same time


@dataclass(frozen=True, kw_only=True)
class Rows(Piece):
    """Some rows; `start` and `stop` are row numbers in the file."""

    kind: ClassVar[str] = "Parquet"

    def read(self) -> Iterator[JsonObject]:
        yield from records_of(_scan(self.place).slice(self.start, self.stop - self.start).collect())


def survey(place: Place, encoding: str, rows_a_piece: int) -> Raw:
    """Takes the number of rows from the file's own description. Raises DataError."""
    import polars as pl

    try:
        rows = int(_scan(place).select(pl.len()).collect().item())
        pieces = tuple(
            Rows(place=place, first=start, start=start, stop=stop, count=stop - start)
            for start in range(0, rows, rows_a_piece)
            for stop in (min(start + rows_a_piece, rows),)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{place}: not a readable {'Arrow' if place.suffix == '.arrow' else 'Parquet'} file ({error})"
        ) from error
    return Raw(str(place), None, rows, pieces)


def records_of(frame: pl.DataFrame) -> Iterator[JsonObject]:
    """The rows of a frame as JSON values."""
    import polars as pl

    plain = (pl.String, pl.Boolean)
    odd = [name for name, kind in frame.schema.items() if not (kind in plain or kind.is_integer() or kind.is_float())]
    for part in frame.iter_slices(SLICE):
        for record in part.to_dicts():
            for name in odd:
                record[name] = plain_value(record[name])
            yield record


def plain_value(value: Any) -> Any:
    """A cell as a JSON value: dates and decimals become text, structs lose the nulls that unify them."""
    if isinstance(value, dict):
        return {key: plain_value(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [plain_value(inner) for inner in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _scan(place: Place) -> pl.LazyFrame:
    import polars as pl

    # `glob`: a name with [brackets] is a name, not a pattern
    return pl.scan_ipc(place.path, glob=False) if place.suffix == ".arrow" else pl.scan_parquet(place.path, glob=False)
