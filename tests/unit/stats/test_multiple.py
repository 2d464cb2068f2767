from __future__ import annotations

import gc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.stats.multiple import holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_equals_statsmodels(ps: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    with patch.object(gc, "collect"):  # at each call, for a quarter of a second in a process as large as a test's
        expected = multitest.multipletests(ps, method="holm")[1].tolist()
    assert holm(ps) == pytest.approx(expected)


def test_false_alarms_stay_rare_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    alarms = sum(min(holm(rng.random(20).tolist())) < 0.05 for _ in range(2000))
    assert alarms / 2000 < 0.065
