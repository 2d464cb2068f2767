from __future__ import annotations

import math
import random

import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st

from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics.exact_match import ExactMatch
from tuneloop.evaluate.scoring import PROPORTION, How, arrays, by_slice, compare, estimate, groups, picked, summary
from tuneloop.stats.bootstrap import ratio
from tuneloop.stats.intervals import wilson
from tuneloop.stats.paired import mcnemar


def scores(*values: float | None) -> list[Score]:
    return [Score(value, None if value is not None else "why not") for value in values]


def test_unscored_is_counted_and_never_zero() -> None:
    found = summary(ExactMatch(), {"base": scores(0, None, 1), "tuned": scores(1, 1, None)}, 0.95)
    assert found["base"] == {"value": 0.5, "n": 2, "low": wilson(1, 2).low, "high": wilson(1, 2).high}
    assert found["unscored"] == {"base": {"why not": 1}, "tuned": {"why not": 1}}
    assert found["difference"]["n"] == 1 and found["difference"]["value"] == 1
    assert found["better"] == "higher" and found["signature"] == ExactMatch().signature


def test_nothing_scored_is_null() -> None:
    found = compare(How("mean"), {"base": scores(None), "tuned": scores(None)}, 0.95)
    assert found["tuned"] == {"value": None, "n": 0, "low": None, "high": None}
    assert found["difference"] == {"value": None, "n": 0, "low": None, "high": None, "p": None}


def test_difference_is_paired_and_only_with_both() -> None:
    base, tuned = scores(0, 0, 0, 1), scores(1, 1, 0, 1)
    assert compare(PROPORTION, {"base": base, "tuned": tuned}, 0.95)["difference"]["p"] == mcnemar(0, 2)
    assert "difference" not in compare(PROPORTION, {"tuned": tuned}, 0.95)


def test_equal_means_still_have_an_interval() -> None:
    found = estimate(How("mean"), scores(*[1.0] * 20), 0.95)
    assert found["value"] == 1 and found["low"] == pytest.approx(wilson(20, 20).low) and found["high"] == 1


def test_geometric_is_token_weighted() -> None:
    given = [Score(math.exp(2.0), weight=30.0), Score(math.exp(4.0), weight=10.0)]
    found = estimate(How("geometric"), given, 0.95)
    assert found["value"] == pytest.approx(math.exp((2 * 30 + 4 * 10) / 40))
    assert found["low"] <= found["value"] <= found["high"]


def test_a_value_that_is_no_number_is_not_scored() -> None:
    assert estimate(PROPORTION, [Score(math.nan), Score(1.0)], 0.95)["n"] == 1
    assert estimate(How("mean"), [Score(math.inf)], 0.95) == {"value": None, "n": 0, "low": None, "high": None}


def test_numbers_of_a_slice_are_those_of_the_slice_alone() -> None:
    rng = random.Random(0)
    base, tuned = ([Score(rng.random()) for _ in range(30)] for _ in range(2))
    rows = [1, 4, 5, 9, 20, 22, 28]
    way = How("mean")
    given = {"f": (way, {"base": arrays(way, base), "tuned": arrays(way, tuned)})}
    found = by_slice(given, {"key": {"value": rows}}, 0.95)["key"]["value"]["f"]
    alone = compare(way, picked({"base": base, "tuned": tuned}, rows), 0.95)
    assert found.pop("difference").items() >= alone.pop("difference").items() and found == alone


def test_p_of_slices_is_corrected_over_all_of_them() -> None:
    way = PROPORTION
    right, wrong = [Score(1.0)] * 8, [Score(0.0)] * 8
    given = {"m": (way, {"base": arrays(way, [*wrong, *wrong]), "tuned": arrays(way, [*right, *wrong])})}
    parts = {"a": {"x": range(8), "y": range(8, 16)}, "b": {"z": range(16), "none": []}}
    found = by_slice(given, parts, 0.95)
    p = mcnemar(0, 8)
    changes = [entry["m"]["difference"] for values in found.values() for entry in values.values()]
    assert [one["p"] for one in changes] == [p, 1.0, p, None]
    assert [one["p_holm"] for one in changes] == [3 * p, 1.0, 3 * p, None]


def test_corpus_statistics_are_summed() -> None:
    way = How("corpus", combine=ratio)
    given = [Score(0.5, statistics=(1.0, 2.0)), Score(None, "no"), Score(0.0, statistics=(0.0, 6.0))]
    found = estimate(way, given, 0.95)
    assert found["value"] == 1 / 8 and found["n"] == 2 and 0 <= found["low"] <= 1 / 8 <= found["high"] <= 0.5


@given_by(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=40), st.randoms())
def test_estimates_hold_their_value_and_do_not_depend_on_order(values: list[float | None], rng: random.Random) -> None:
    given = scores(*values)
    found = estimate(How("mean"), given, 0.95)
    assert found["n"] == sum(value is not None for value in values)
    if found["n"]:
        assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9
        again = estimate(How("mean"), rng.sample(given, len(given)), 0.95)
        assert again["value"] == pytest.approx(found["value"])
        same = compare(How("mean"), {"base": given, "tuned": given}, 0.95)["difference"]
        assert same["value"] == 0 and same["p"] == 1 and same["low"] == -same["high"] < 0, "ties are no certainty"


def test_groups_leave_out_what_has_no_value() -> None:
    assert groups([{"kind": "a"}, {"kind": "b"}, {"kind": "a"}, {}], "kind") == {"a": [0, 2], "b": [1]}
    assert groups([{}], "nothing") == {}
