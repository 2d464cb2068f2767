from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from tests.unit.evaluate.evaluated import side
from tuneloop.core.errors import DataError
from tuneloop.evaluate.comparing import align
from tuneloop.evaluate.config import GateConfig
from tuneloop.evaluate.gate import decide, parse

Scores = list[float | None]


def verdict(metric: str, first: Scores, second: Scores, margin: float, **options: float) -> str:
    gate = GateConfig.model_validate({"worse_by": {metric: margin}, **options})
    found = decide(align([side("a", {metric: first}), side("b", {metric: second})]), gate)
    assert found["words"][0].startswith(found["verdict"])
    return found["verdict"]


def split(right: int, wrong: int) -> Scores:
    return [1.0] * right + [0.0] * wrong


def test_better_and_equal_runs_pass() -> None:
    assert verdict("exact_match", split(300, 100), split(380, 20), 0.02) == "pass"
    assert verdict("exact_match", split(900, 100), split(900, 100), 0.02) == "pass"
    assert verdict("f1", split(900, 100), split(900, 100), 0.02) == "pass"


def test_a_clear_drop_is_worse_and_a_doubtful_one_is_not_enough_evidence() -> None:
    assert verdict("exact_match", split(400, 0), split(300, 100), 0.02) == "worse"
    assert verdict("exact_match", split(400, 0), split(392, 8), 0.02) == "not enough evidence"
    assert verdict("f1", split(400, 0), split(300, 100), 0.02) == "worse"


def test_lower_is_better_where_the_metric_says_so() -> None:
    spread = [2.0 + (i % 10) / 10 for i in range(200)]
    less, more = [x - 0.5 for x in spread], [x + 0.5 for x in spread]
    assert verdict("perplexity", list(spread), list(less), 0.1) == "pass"
    assert verdict("perplexity", list(spread), list(more), 0.1) == "worse"


def test_few_examples_are_never_enough() -> None:
    assert verdict("exact_match", split(0, 99), split(99, 0), 0.02) == "not enough evidence"
    assert verdict("exact_match", split(0, 99), split(99, 0), 0.02, least=99) == "pass"
    assert verdict("f1", [None] * 200, split(200, 0), 0.02) == "not enough evidence"
    assert verdict("f1", split(30, 0), split(30, 0), 0.02, least=30) == "not enough evidence", "ties of few"


def test_the_worst_of_several_decides_and_every_row_is_told() -> None:
    a = side("a", {"exact_match": split(400, 0), "f1": split(400, 0)})
    b = side("b", {"exact_match": split(400, 0), "f1": split(300, 100)})
    c = side("c", {"exact_match": split(392, 8), "f1": split(400, 0)})
    gate = GateConfig(worse_by={"exact_match": 0.02, "f1": 0.02})
    both = decide(align([a, b, c]), gate)
    assert both["verdict"] == "worse" and both["exit"] == 3
    assert [(row["run"], row["metric"], row["verdict"]) for row in both["rows"]] == [
        ("b", "exact_match", "pass"), ("b", "f1", "worse"),
        ("c", "exact_match", "not enough evidence"), ("c", "f1", "pass"),
    ]  # fmt: skip
    assert decide(align([a, c]), gate)["exit"] == 4
    assert decide(align([a, side("d", {"exact_match": split(400, 0), "f1": split(400, 0)})]), gate)["exit"] == 0
    assert "margin 0.020" in both["words"][1] and "n 400" in both["words"][1]


def test_a_metric_that_was_not_compared_is_an_error() -> None:
    compared = align([side("a", {"f1": split(2, 2)}), side("b", {"f1": split(2, 2)})])
    with pytest.raises(DataError, match="'f2' is not compared; f1"):
        decide(compared, GateConfig(worse_by={"f2": 0.1}))
    compared.facts["f1"] = {**compared.facts["f1"], "better": "neither"}
    with pytest.raises(DataError, match="neither more nor less"):
        decide(compared, GateConfig(worse_by={"f1": 0.1}))


def test_the_command_lines_form() -> None:
    assert parse("exact_match=0.02, f1=0") == {"exact_match": 0.02, "f1": 0.0}
    for wrong in ("f1", "f1=", "=0.1", "f1=-0.1", "f1=nan", "f1=inf", "f1=2%", "", "f1=0.1,f1=0.2"):
        with pytest.raises(DataError, match=r"--gate"):
            parse(wrong)
    for value in ({"worse_by": {}}, {"worse_by": {"f1": -1}}, {"worse_by": {"f1": float("nan")}}):
        with pytest.raises(ValidationError):
            GateConfig.model_validate(value)


@pytest.mark.parametrize("metric", ["exact_match", "f1"])
def test_a_true_drop_of_the_margin_passes_in_at_most_one_of_twenty(metric: str) -> None:
    rng, passed, runs = np.random.default_rng(11), 0, 300
    for _ in range(runs):
        first = rng.random(150) < 0.8
        second = np.where(rng.random(150) < 0.85, first, rng.random(150) < 0.8)  # alike in most rows, as real runs are
        second &= rng.random(150) > 0.05 / 0.8  # of 0.8 a share of 0.05 / 0.8 is lost: a true drop of 0.05
        if metric == "f1":  # graded scores with the same means
            noise = rng.random(150)
            first, second = first * (0.8 + 0.2 * noise) / 0.9, second * (0.8 + 0.2 * noise) / 0.9
            first, second = np.minimum(first, 1), np.minimum(second, 1)
        margin = 0.05 if metric == "exact_match" else 0.05 * float(np.minimum((0.8 + 0.2 * noise) / 0.9, 1).mean())
        passed += verdict(metric, [float(x) for x in first], [float(x) for x in second], margin) == "pass"
    assert passed / runs <= 0.05
