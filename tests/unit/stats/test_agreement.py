from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tuneloop.stats import bootstrap
from tuneloop.stats.agreement import agreement


def ratings(n: int, seed: int, same: float = 0.6) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    first = [draw.choice(["win", "tie", "lose"]) for _ in range(n)]
    return first, [one if draw.random() < same else draw.choice(["win", "tie", "lose"]) for one in first]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    first, second = ratings(80, seed)
    found = agreement(first, second)
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    assert found.kappa_interval is not None
    assert found.kappa_interval.low < found.kappa < found.kappa_interval.high
    assert found.share == sum(a == b for a, b in zip(first, second, strict=True)) / 80
    assert found.interval.low < found.share < found.interval.high


def test_by_hand() -> None:
    """Cohen's own kind of table: 20 yes-yes, 15 no-no, 10 yes-no, 5 no-yes; 0.7 observed, 0.5 expected."""
    first = ["yes"] * 30 + ["no"] * 20
    second = ["yes"] * 20 + ["no"] * 10 + ["yes"] * 5 + ["no"] * 15
    assert agreement(first, second).kappa == pytest.approx(0.4)


def test_where_kappa_says_nothing() -> None:
    found = agreement(["tie"] * 5, ["tie"] * 5)  # all ties
    assert (found.share, found.kappa, found.kappa_interval) == (1.0, None, None)
    assert agreement([1], [1]).kappa is None
    assert agreement([1, 2], [1, 2]).kappa == 1.0
    for first, second in (([], []), ([1], [1, 2])):
        with pytest.raises(ValueError, match="two ratings of each item"):
            agreement(first, second)


def test_the_interval_holds_what_it_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1_000)
    everyone = np.array(ratings(5_000, 0)).T
    truth = agreement(*everyone.T.tolist()).kappa
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        interval = agreement(*everyone[generator.integers(0, 5_000, 120)].T.tolist()).kappa_interval
        assert interval is not None and truth is not None
        held += interval.low <= truth <= interval.high
    assert 0.93 <= held / 300 <= 0.97
