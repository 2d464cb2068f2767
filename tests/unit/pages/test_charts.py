from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from tuneloop.pages import charts, drawing

EVIL = '<script>alert("x")</script> & 码'
SIZES = st.just(0.0) | st.floats(1e-9, 1e9)


def sound(drawn: str) -> None:
    """Parses, and has no number that a browser could not draw."""
    HTMLParser().feed(drawn)
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", drawn) and "<script" not in drawn
    assert not re.search(r'(width|height)="-', drawn)


def test_curves_survive_any_numbers() -> None:
    for points in (
        [(1, 1.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, -3.0), (5, 2.0)],
        [(1, 1e-9), (2, 1e9)],
        [(7, 2.0), (7, 3.0)],
    ):
        for log in (True, False):
            sound(drawing.curves([("loss", "train", points)], log=log))
    assert drawing.curves([("loss", "train", [])]) == ""
    line = [(i, float(i % 7)) for i in range(5000)]
    assert len(drawing.thinned(line)) <= drawing.MOST_POINTS + 1 and drawing.thinned(line)[-1] == line[-1]
    assert drawing.smoothed([(i, 2.0 * i) for i in range(100)])[0] == (0, 0.0)


@given(st.lists(SIZES, min_size=1, max_size=40), st.none() | st.floats(0, 40))
def test_columns_survive_any_numbers(values: list[float], mark: float | None) -> None:
    labels = [EVIL] * len(values)
    drawn = charts.columns(labels, [(EVIL, values), ("b", values)], EVIL, (mark, EVIL) if mark is not None else None)
    sound(drawn)
    assert drawn.count("<rect") == 2 * sum(value > 0 for value in values)


@given(st.lists(st.tuples(st.text(max_size=40), st.lists(SIZES, min_size=2, max_size=2)), max_size=30))
def test_bars_survive_any_numbers(rows: list[tuple[str, list[float]]]) -> None:
    drawn = charts.bars(["a", EVIL], [(name, values, EVIL) for name, values in rows])
    sound(drawn)
    assert all(str(escape(name)) in drawn for name, _ in rows)  # in full, as the title of what is cut


@given(
    st.lists(st.tuples(st.text(max_size=30), st.integers(0, 99), st.lists(st.integers(0, 9), max_size=4)), max_size=20)
)
def test_rings_survive_any_numbers(tree: list[tuple[str, int, list[int]]]) -> None:
    drawn = charts.rings([(name, size, [(EVIL, part) for part in parts]) for name, size, parts in tree])
    sound(drawn)
    assert drawn.count("<path") == sum(1 + len(parts) for _, _, parts in tree)


def test_one_name_is_a_whole_ring() -> None:
    path = re.search(r' d="M([\d.]+) ([\d.]+)A262 262 0 1 1 ([\d.]+) ([\d.]+)', charts.rings([("写", 3, [("诗", 3)])]))
    assert path is not None, "an arc that ends where it begins is not drawn by browsers"
    assert path.group(1, 2) != path.group(3, 4)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 99, "short"),
        ("abcdefghijkl", 42, "abcde…"),
        ("一二三四五六", 40, "一二…"),
        ("a\n b", 99, "a b"),
        ("", 9, ""),
    ],
)
def test_labels_are_cut_by_their_width_on_the_page(text: str, width: float, expected: str) -> None:
    assert charts.fitted(text, width) == expected


def test_colours_repeat() -> None:
    assert charts.colour(0) == "c1" and charts.colour(charts.COLOURS) == "c1"
