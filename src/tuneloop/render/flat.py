"""Rendered rows without an object for each: a few arrays over all of them, in memory or mapped from files.

Shapes: T tokens and R rows in all; S spans, stretches of one weight within a row (an answer is one).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, overload

from tuneloop.render.rendered import Rendered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ARRAYS = {
    "ids": "int32", "ends": "int64", "span_ends": "int64", "span_tokens": "int32", "span_weights": "float32",
    "examples": "S", "left_out_messages": "int32", "cut_tokens": "int32",
}  # fmt: skip
"""ids [T]; the end of each row in ids [R] and in the spans [R]; tokens [S] and weight [S] of each span; of each row [R]
the id of its Example and what it lost."""


class FlatRows(Sequence[Rendered]):
    """Rows that become `Rendered` when they are asked for, a few microseconds each."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """`arrays` are those of `ARRAYS`."""
        self.arrays = dict(arrays)

    @classmethod
    def of(cls, batches: Iterable[Sequence[Rendered]]) -> FlatRows:
        """Rows that come in batches, in their order."""
        import numpy as np

        parts = [_flat(rows) for rows in batches if rows] or [_flat([])]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in ARRAYS}
        for name in ("ends", "span_ends"):  # were lengths within each batch
            joined[name] = np.cumsum(joined[name])
        return cls(joined)

    def __len__(self) -> int:
        return len(self.arrays["ends"])

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rendered]: ...
    def __getitem__(self, index: int | slice) -> Rendered | list[Rendered]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        import numpy as np

        arrays, row = self.arrays, range(len(self))[index]
        tokens, spans = (
            slice(arrays[name][row - 1] if row else 0, arrays[name][row]) for name in ("ends", "span_ends")
        )
        return Rendered(
            arrays["ids"][tokens],
            np.repeat(arrays["span_weights"][spans], arrays["span_tokens"][spans]),
            arrays["examples"][row].decode("ascii"),
            int(arrays["left_out_messages"][row]),
            int(arrays["cut_tokens"][row]),
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The tokens of each row [R]."""
        import numpy as np

        return np.diff(self.arrays["ends"], prepend=0)

    @property
    def supervised(self) -> NDArray[np.int64]:
        """The tokens of each row with a weight above 0 [R]."""
        import numpy as np

        learnt = np.where(self.arrays["span_weights"] > 0, self.arrays["span_tokens"], 0)
        return np.diff(np.append(0, np.cumsum(learnt, dtype=np.int64))[self.arrays["span_ends"]], prepend=0)

    @property
    def examples(self) -> list[str]:
        """The id of each row's Example."""
        return self.arrays["examples"].astype(str).tolist()


def _flat(rows: Sequence[Rendered]) -> dict[str, NDArray[Any]]:
    """The arrays of some rows, with lengths in place of ends."""
    import numpy as np

    lengths = np.array([len(row) for row in rows], np.int64)
    weights = np.concatenate([np.zeros(0, np.float32), *(row.weights for row in rows)])
    begins = np.zeros(len(weights), bool)
    begins[1:] = weights[1:] != weights[:-1]
    firsts = np.cumsum(lengths) - lengths
    begins[firsts[lengths > 0]] = True
    places = np.flatnonzero(begins)
    spans = np.diff(np.searchsorted(places, np.append(firsts, len(weights))))
    found = {
        "ids": np.concatenate([np.zeros(0, np.int32), *(row.ids for row in rows)]),
        "ends": lengths,
        "span_ends": spans,
        "span_tokens": np.diff(places, append=len(weights)),
        "span_weights": weights[places],
        "examples": np.array([row.example for row in rows], "S"),
        "left_out_messages": np.array([row.left_out_messages for row in rows]),
        "cut_tokens": np.array([row.cut_tokens for row in rows]),
    }
    return {name: array.astype(ARRAYS[name], copy=False) for name, array in found.items()}


def lengths_of(rows: Sequence[Any]) -> list[int]:
    """The tokens of each row (anything that has `ids`)."""
    return rows.lengths.tolist() if isinstance(rows, FlatRows) else [len(row.ids) for row in rows]


def supervised_of(rows: Sequence[Rendered]) -> list[int]:
    """The tokens of each row with a weight above 0."""
    return rows.supervised.tolist() if isinstance(rows, FlatRows) else [row.supervised for row in rows]


def flat(rows: Sequence[Rendered]) -> FlatRows:
    """Rows that are in memory already."""
    return rows if isinstance(rows, FlatRows) else FlatRows.of(chain([rows]))


def ids_of(rows: Sequence[Any]) -> list[NDArray[np.int32]]:
    """The token ids [T] of each row."""
    if not isinstance(rows, FlatRows):
        return [row.ids for row in rows]
    ids, ends = rows.arrays["ids"], rows.arrays["ends"].tolist()
    return [ids[begin:end] for begin, end in pairwise([0, *ends])]
