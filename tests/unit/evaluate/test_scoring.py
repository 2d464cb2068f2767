from __future__ import annotations

import math

import pytest

from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics.exact_match import ExactMatch
from tuneloop.evaluate.scoring import PROPORTION, How, compare, estimate, groups, summary
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


def test_groups_combine_keys_and_leave_out_what_has_no_value() -> None:
    metas = [{"kind": "a", "language": "zh"}, {"kind": "b", "language": "en"}, {"kind": "a"}, {}]
    assert groups(metas, "kind") == {"a": [0, 2], "b": [1]}
    assert groups(metas, "kind+language") == {"a · zh": [0], "b · en": [1]}
    assert groups(metas, "nothing") == {}
