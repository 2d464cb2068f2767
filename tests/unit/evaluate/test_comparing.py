from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.evaluate.evaluated import METRICS, side
from tuneloop.core.errors import DataError
from tuneloop.evaluate.comparing import LISTED, Comparison, Wanted, align
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.scoring import compare, how
from tuneloop.stats.paired import mcnemar

RIGHT, WRONG = [1.0], [0.0]


def test_numbers_are_those_of_a_report_on_the_shared_examples() -> None:
    before, after = [0.2, 0.9, 0.5, 1.0, 0.0, 0.3], [0.4, 0.9, 0.1, 1.0, 1.0, 0.8]
    surprise = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [1.5, 2.0, 4.0, 5.5, 3.0, 2.0]
    a = side("a", {"f1": before, "perplexity": surprise[0]})
    b = side("b", {"f1": after, "perplexity": surprise[1]}, start=2)
    value = align([a, b]).to_json()
    assert value["shared"] == 4 and value["runs"] == {"a": {"n": 6}, "b": {"n": 6}}
    for name, one, two in (("f1", before, after), ("perplexity", *surprise)):
        scores = {"base": [Score(x, weight=2.0) for x in one[2:]], "tuned": [Score(x, weight=2.0) for x in two[:4]]}
        expected = compare(how(METRICS[name]), scores, 0.95)
        found = value["metrics"][name]
        assert found["values"] == {"a": pytest.approx(expected["base"]), "b": pytest.approx(expected["tuned"])}
        assert found["differences"]["b"] == pytest.approx(expected["difference"])


def test_wins_and_losses_are_told_apart_by_direction() -> None:
    a = side("a", {"perplexity": [2.0, 3.0, 4.0]}, says="old")
    b = side("b", {"perplexity": [1.0, 3.0, 9.0]}, says="new")
    found = align([a, b]).to_json()["changed"]["b"]
    assert (found["won"], found["lost"], found["even"]) == (1, 1, 1)
    assert found["wins"][0] == {
        "id": "0000", "prompt": [{"role": "user", "content": "question 0"}], "reference": "answer", "first": "old",
        "second": "new", "scores": [2.0, 1.0],
    }  # fmt: skip
    many = align([side("a", {"f1": WRONG * 300}), side("b", {"f1": RIGHT * 300})]).to_json()["changed"]["b"]
    assert many["won"] == 300 and len(many["wins"]) == LISTED


def test_three_runs_share_one_reference_and_slices_are_corrected() -> None:
    languages = ["en", "zh"] * 20
    a = side("a", {"exact_match": WRONG * 40}, language=languages)
    b = side("b", {"exact_match": [1.0, 0.0] * 20}, language=languages)
    c = side("c", {"exact_match": RIGHT * 40}, language=languages)
    value = align([a, b, c]).to_json()
    assert set(value["metrics"]["exact_match"]["differences"]) == {"b", "c"}
    en, zh = (value["slices"]["language"][name]["exact_match"]["differences"] for name in ("en", "zh"))
    p = mcnemar(0, 20)
    assert (en["b"]["p_holm"], zh["b"]["p_holm"]) == (2 * p, 1.0)
    assert en["c"]["p_holm"] == zh["c"]["p_holm"] == 2 * p, "of each run by itself"


def test_a_slice_can_be_all_that_is_compared() -> None:
    kinds = ["x", "y", "y", "y"]
    a = side("a", {"f1": [0.0, 0.5, 0.5, 0.5]}, kind=kinds)
    b = side("b", {"f1": [1.0, 0.5, 0.5, 0.5]}, kind=kinds)
    only = align([a, b], Wanted(slices=["kind=y"])).to_json()
    assert only["shared"] == 3 and only["only"] == ["kind=y"] and only["slices"] == {}
    assert only["metrics"]["f1"]["differences"]["b"]["value"] == 0
    for wrong, told in (("kin", "did you mean 'kind'"), ("kind=z", "there are: x, y")):
        with pytest.raises(DataError, match=told):
            align([a, b], Wanted(slices=[wrong]))


def test_unequal_signatures_are_refused_with_both() -> None:
    a, b = side("a", {"f1": RIGHT, "exact_match": RIGHT}), side("b", {"f1": RIGHT, "exact_match": RIGHT})
    entry = {**b.report["metrics"]["f1"], "signature": "f1|other"}
    b = replace(b, report={**b.report, "metrics": {**b.report["metrics"], "f1": entry}})
    with pytest.raises(DataError, match=r"(?s)f1 is not the same measure.*a: f1\|.*b: f1\|other.*--metric"):
        align([a, b])
    assert list(align([a, b], Wanted(metrics=["exact_match"])).given) == ["exact_match"]


def test_what_only_some_measured_is_left_out_and_told() -> None:
    a, b = side("a", {"f1": RIGHT, "exact_match": RIGHT}), side("b", {"f1": RIGHT})
    assert align([a, b]).left_out == {"exact_match": "not measured by b"}
    with pytest.raises(DataError, match="exact_match: not measured by b"):
        align([a, b], Wanted(metrics=["exact_match"]))
    with pytest.raises(DataError, match="did you mean 'exact_match'"):
        align([a, b], Wanted(metrics=["exactmatch"]))
    with pytest.raises(DataError, match="no metric in common"):
        align([side("c", {"exact_match": RIGHT}), b])


def test_nothing_in_common_and_other_versions_are_refused() -> None:
    a = side("a", {"f1": RIGHT * 3})
    with pytest.raises(DataError, match=r"no example in common \(a: 3, b: 4\)"):
        align([a, side("b", {"f1": RIGHT * 4}, start=100)])
    with pytest.raises(DataError, match=r"b: its report\.json has version 2"):
        align([a, replace(a, name="b", report={**a.report, "version": 2})])
    with pytest.raises(DataError, match="second run"):
        align([a])
    old = side("b", {"perplexity": [2.0]})
    old = replace(old, samples=[{**line, "statistics": {}} for line in old.samples])
    with pytest.raises(DataError, match="no statistics of perplexity"):
        align([side("a", {"perplexity": [2.0]}), old])


def test_equal_questions_are_paired_one_to_one() -> None:
    a = side("a", {"f1": [0.0, 1.0]})
    twice = replace(a, samples=[{**line, "id": "same"} for line in a.samples])
    assert align([twice, replace(twice, name="b")]).to_json()["shared"] == 2


values = st.one_of(st.none(), st.floats(0, 1), st.just(float("nan")))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=30), st.integers(0, 10))
def test_any_scores_compare_without_a_crash(rows: list[tuple[float | None, float | None]], start: int) -> None:
    a, b = side("a", {"f1": [x for x, _ in rows]}), side("b", {"f1": [y for _, y in rows]}, start=start)
    if start >= len(rows):
        with pytest.raises(DataError, match="in common"):
            align([a, b])
        return
    found: Comparison = align([a, b])
    value = found.to_json()
    change = value["metrics"]["f1"]["differences"]["b"]
    if change["n"]:
        assert change["low"] - 1e-9 <= change["value"] <= change["high"] + 1e-9 and 0 < change["p"] <= 1
    counts = value["changed"]["b"]
    assert sum(counts[name] for name in ("won", "lost", "even", "unscored")) == value["shared"]
