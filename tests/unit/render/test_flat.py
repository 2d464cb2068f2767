"""Rows in a few arrays are the rows that went in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.render.flat import FlatRows, ids_of, lengths_of, supervised_of
from tuneloop.render.rendered import Rendered

ROWS = st.lists(
    st.builds(
        lambda pairs, name, left, cut: Rendered(
            np.array([number for number, _ in pairs], np.int32),
            np.array([weight for _, weight in pairs], np.float32),
            f"{name:016x}",
            left,
            cut,
        ),
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 1.0, 0.5])), min_size=1, max_size=9),
        st.integers(0, 2**64 - 1),
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    max_size=9,
)


def values(row: Rendered) -> tuple:
    return (row.ids.tolist(), row.weights.tolist(), row.example, row.left_out_messages, row.cut_tokens)


@settings(deadline=None, derandomize=True)
@given(st.lists(ROWS, max_size=4))
def test_rows_come_out_as_they_went_in(batches: list[list[Rendered]]) -> None:
    rows = [row for batch in batches for row in batch]
    flat = FlatRows.of(batches)
    assert list(map(values, flat)) == list(map(values, rows)) and len(flat) == len(rows)
    assert lengths_of(flat) == lengths_of(rows) and supervised_of(flat) == supervised_of(rows)
    assert [ids.tolist() for ids in ids_of(flat)] == [ids.tolist() for ids in ids_of(rows)]
    assert flat.examples == [row.example for row in rows]
    assert all(row.ids.dtype == np.int32 and row.weights.dtype == np.float32 for row in flat)
    assert list(map(values, flat[1:3])) == list(map(values, rows[1:3]))
    if rows:
        assert values(flat[-1]) == values(rows[-1])
