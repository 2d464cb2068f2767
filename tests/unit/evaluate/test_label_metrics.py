"""macro_f1 and the choices' metrics against scikit-learn and by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
from simulation import covered
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score

from tuneloop.evaluate.metrics import Choice, Metric, Observation
from tuneloop.evaluate.metrics.calibration import Calibration
from tuneloop.evaluate.metrics.macro_f1 import MacroF1
from tuneloop.evaluate.metrics.multiple_choice import MultipleChoice
from tuneloop.evaluate.scoring import estimate, how
from tuneloop.stats import bootstrap

LABELS = ("negative", "neutral", "positive")
CHINESE = ("不满意", "一般", "满意")


def seen(labels: tuple[str, ...], n: int, seed: int = 0) -> list[Observation]:
    draw = random.Random(seed)
    rows: list[Observation] = []
    for _ in range(n):
        expected = draw.choices(labels, [1, 3, 6])[0]
        named = draw.choice([expected, expected, *labels, "", f"{labels[0]}，{labels[1]}"])
        rows.append(Observation(expected, text=f"答案：{named}。" if named else "no idea", labels=labels))
    return rows


def number(metric: Metric, rows: list[Observation]) -> float:
    return estimate(how(metric), metric.score_all(rows, lambda count: None), 0.95)["value"]


@pytest.mark.parametrize("labels", [LABELS, CHINESE])
def test_macro_f1_is_that_of_scikit_learn(labels: tuple[str, ...]) -> None:
    rows = seen(labels, 300)
    read = [MacroF1().named(row) for row in rows]
    found = [named.found or "none" for named in read if not isinstance(named, str)]
    expected = [row.reference for row in rows]
    assert "none" in found
    theirs = f1_score(expected, found, labels=labels, average="macro", zero_division=0)
    assert number(MacroF1(), rows) == pytest.approx(theirs, abs=1e-12)
    details = MacroF1().details(rows, MacroF1().score_all(rows, lambda count: None))
    assert details is not None and details["columns"] == [*sorted(labels), "none or several"]
    table = confusion_matrix(expected, found, labels=[*sorted(labels), "none"])[:-1]
    assert details["counts"] == table.tolist()


def test_macro_f1_leaves_out_what_does_not_occur() -> None:
    """As scikit-learn without `labels`: a slice of two of three labels is not pulled to 0 by the third."""
    rows = [
        Observation("positive", text="positive", labels=LABELS),
        Observation("neutral", text="neutral", labels=LABELS),
    ]
    assert number(MacroF1(), rows) == 1.0
    rows.append(Observation("neutral", text="negative", labels=LABELS))  # named, and so it counts
    theirs = f1_score(["positive", "neutral", "neutral"], ["positive", "neutral", "negative"], average="macro")
    assert number(MacroF1(), rows) == pytest.approx(theirs)
    assert number(MacroF1(), [Observation("neutral", text="?", labels=LABELS)]) == 0.0
    assert MacroF1().details([Observation("x", text="x")], [MacroF1().score(Observation("x", text="x"))]) is None


def choices(*nlls: float, tokens: float = 2.0) -> tuple[Choice, ...]:
    return tuple(Choice(text, nll, tokens) for text, nll in zip(("甲", "B", "long choice"), nlls, strict=False))


def test_multiple_choice() -> None:
    metric = MultipleChoice()
    assert metric.score(Observation("甲", choices=choices(1.0, 2.0))).value == 1
    assert metric.score(Observation(" Ｂ", choices=choices(1.0, 2.0))).value == 0
    # the long choice wins by the token or the byte
    row = Observation("long choice", choices=(*choices(1.0, 1.2), Choice("long choice", 3.0, 8.0)))
    assert [MultipleChoice(per=per).score(row).value for per in ("choice", "token", "byte")] == [0, 1, 1]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Observation("甲", choices=choices(1.0, 1.0)), "equally likely"),
        (Observation("丙", choices=choices(1.0, 2.0)), "none of the choices"),
        (Observation("甲", choices=choices(float("nan"), 2.0)), "likelihood of zero"),
        (Observation("甲", choices=choices(float("inf"), 2.0)), "likelihood of zero"),
        (Observation("甲", choices=(Choice("甲", 1.0, 1.0), Choice("甲 ", 2.0, 1.0))), "two choices are equal"),
        (Observation("甲", choices=choices(1.0)), "fewer than two"),
        (Observation(None, choices=choices(1.0, 2.0)), "no reference"),
    ],
)
def test_what_cannot_be_chosen_is_unscored(row: Observation, why: str) -> None:
    found = MultipleChoice().score(row)
    assert found.value is None and why in (found.why or "")
    if why != "equally likely":  # none was chosen, and yet the model was as sure as it was
        assert Calibration().score(row).value is None


def binary(probability: float, right: bool) -> Observation:
    return Observation(
        "甲" if right else "B", choices=choices(-float(np.log(probability)), -float(np.log(1 - probability)))
    )


def test_calibration_by_hand() -> None:
    rows = [binary(0.95, True), binary(0.91, False), binary(0.65, True), binary(0.62, True)]
    # bin (0.9, 1]: two rows, confidence 0.93, accuracy 0.5; bin (0.6, 0.7]: two rows, confidence 0.635, accuracy 1
    assert number(Calibration(), rows) == pytest.approx((abs(0.5 - 0.93) * 2 + abs(1 - 0.635) * 2) / 4)
    details = Calibration().details(rows, Calibration().score_all(rows, lambda count: None))
    assert details == {"kind": "reliability", "bins": [
        {"low": 0.6, "high": 0.7, "n": 2, "confidence": pytest.approx(0.635), "accuracy": 1.0},
        {"low": 0.9, "high": 1.0, "n": 2, "confidence": pytest.approx(0.93), "accuracy": 0.5},
    ]}  # fmt: skip
    assert number(Calibration(), [binary(0.5, True)]) == 0.0  # half sure of each, half right
    brier = number(Calibration(measure="brier"), rows)
    assert brier == pytest.approx(brier_score_loss([1, 0, 1, 1], [0.95, 0.91, 0.65, 0.62]))


def test_perfect_calibration_is_0_and_bins_are_closed_above() -> None:
    sure = Observation("甲", choices=(Choice("甲", 0.0, 1.0), Choice("B", 800.0, 1.0)))
    assert number(Calibration(), [sure]) == 0.0
    statistics = Calibration().score(binary(0.5, True)).statistics
    assert statistics[3 * 4] == 1  # 0.5 belongs to (0.4, 0.5]


@pytest.mark.parametrize(("honest", "n"), [(1.0, 60), (1.0, 300), (0.6, 100)])
def test_intervals_of_the_calibration_error_hold_at_least_what_they_promise(
    honest: float, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near 0 too, where every resample of a well-calibrated model has a larger error than the sample; SST-2 by a tuned
    SmolLM2 had an error of 0.011 with a bootstrap interval of 0.006 to 0.008."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1_000)
    draw = random.Random(5)
    sure = [draw.uniform(0.5, 0.99) for _ in range(5_000)]
    rows = [binary(p, draw.random() < 0.5 + (p - 0.5) * honest) for p in sure]
    scores = Calibration().score_all(rows, lambda count: None)
    truth = number(Calibration(), rows)
    generator, held = np.random.default_rng(0), 0
    for _ in range(150):
        found = estimate(how(Calibration()), [scores[row] for row in generator.integers(0, 5_000, n)], 0.95)
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        held += found["low"] <= truth <= found["high"]
    assert held / 150 >= 0.92


def test_a_perfect_macro_f1_has_an_interval() -> None:
    """The bootstrap sees no spread where all are right; ten rows do not prove that all others are."""
    rows = [Observation(label, text=label, labels=LABELS) for label in (*LABELS, *LABELS)]
    found = estimate(how(MacroF1()), MacroF1().score_all(rows, lambda count: None), 0.95)
    assert found["value"] == found["high"] == 1.0 and found["low"] < 0.7


@pytest.mark.parametrize("measure", ["macro_f1", "brier"])
def test_intervals_hold_what_they_promise(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of 400 drawn from a population whose value is known: 95 % of the intervals hold it."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1_000)
    draw = random.Random(3)
    metric: Metric = MacroF1() if measure == "macro_f1" else Calibration(measure="brier")
    rows = seen(LABELS, 3_000, 1)
    if measure == "brier":
        sure = [draw.uniform(0.5, 0.99) for _ in range(3_000)]
        rows = [binary(p, draw.random() < p * 0.9) for p in sure]
    statistics = np.asarray([score.statistics for score in metric.score_all(rows, lambda count: None)])
    assert 0.93 <= covered(statistics, metric.combine, size=400, sets=500) <= 0.97
