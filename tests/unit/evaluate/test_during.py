"""Which metrics are measured while training runs, and by which it may stop."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.during import LOWER, measured
from tuneloop.evaluate.metrics import METRICS
from tuneloop.flows.recipe import Recipe

CONFIG = EvaluateConfig.model_validate({"metrics": ["exact_match", "length", "self_consistency"]})


def names(*given: Any) -> list[str]:
    return [METRICS.name_of(metric) for metric in measured(CONFIG, *given)]


def test_costly_metrics_are_measured_where_they_are_named() -> None:
    assert names(None) == ["exact_match", "length"]
    assert names(["length"], "self_consistency") == ["length", "self_consistency"]
    with pytest.raises(ValueError, match=r"'f1' is to be measured .* only exact_match, length"):
        names(None, "f1")


def test_no_best_checkpoint_by_what_has_no_better_end() -> None:
    with pytest.raises(ValueError, match=r"of length neither more nor less is better.*stop by loss or exact_match or"):
        names(None, "length")
    recipe = {"data": {"sources": [{"path": "rows.jsonl"}]}, "evaluate": {"metrics": ["length", "refusal_rate"]}}
    with pytest.raises(ValueError, match=r"of refusal_rate neither more nor less .*; stop by loss"):
        Recipe.model_validate({**recipe, "tune": {"early_stopping": {"metric": "refusal_rate"}}})
    assert LOWER[METRICS.load("length").BETTER] is None
