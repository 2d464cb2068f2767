"""Every schedule: warm-up from near 0 to the peak, its own shape, and an end above or at its floor."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.tune.schedules import FAMILY, Schedule
from tuneloop.tune.schedules.cosine import Cosine
from tuneloop.tune.schedules.cosine_restarts import CosineRestarts
from tuneloop.tune.schedules.linear import Linear
from tuneloop.tune.schedules.wsd import Wsd

NAMES = FAMILY.names()


@pytest.mark.parametrize("name", NAMES)
@given(total=st.integers(1, 400), warmup=st.one_of(st.floats(0, 0.99), st.integers(1, 500)))
def test_between_zero_and_one_and_never_idle(name: str, total: int, warmup: float) -> None:
    schedule: Schedule = FAMILY.make({name: {"warmup": warmup}})
    factors = [schedule.factor(step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors), "a step at rate 0 would be wasted"
    warm = min(total, round(warmup * total) if warmup < 1 else int(warmup))
    assert factors[:warm] == sorted(factors[:warm])
    rises = sum(a < b for a, b in zip(factors[warm:], factors[warm + 1 :], strict=False))
    assert rises <= (2 if name == "cosine_restarts" else 0), "after warm-up down, but for the restarts"
    if warm < total:
        assert factors[warm] == 1.0


def test_shapes() -> None:
    assert Cosine(warmup=0).factor(50, 100) == pytest.approx(0.5)
    assert Cosine(warmup=0).factor(25, 100) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert Cosine(warmup=0, floor=0.1).factor(99_999, 100_000) == pytest.approx(0.1, abs=1e-6)
    assert Linear(warmup=0, floor=0.5).factor(50, 100) == pytest.approx(0.75)
    twice = CosineRestarts(warmup=0, cycles=2, growth=3)
    assert [twice.factor(step, 400) for step in (0, 50, 100, 250)] == pytest.approx([1, 0.5, 1, 0.5])
    assert twice.factor(99, 400) < 0.001
    wsd = Wsd(warmup=10, decay=0.2)
    assert [wsd.factor(step, 110) for step in (9, 10, 89, 90)] == pytest.approx([10 / 11, 1, 1, 1])
    assert wsd.factor(100, 110) == pytest.approx(0.5)
    assert wsd.factor(109, 110) == pytest.approx(0.05)
