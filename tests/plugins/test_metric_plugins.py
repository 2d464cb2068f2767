"""Every metric keeps the promises of its family, in Chinese and English alike."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from tuneloop.evaluate.metrics import METRICS, Aggregation, Better, Metric, Needs, Observation

PAIRS = {"en": ("positive", "negative"), "zh": ("正面", "负面")}


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest) -> Metric:
    return METRICS.make(request.param)


def observed(metric: Metric, language: str, quality: str) -> Observation:
    right, wrong = PAIRS[language]
    if metric.NEEDS == "likelihood":
        nll = {"perfect": 0.0, "good": 0.5, "bad": 9.0}[quality]
        return Observation(right, nll=nll, tokens=3.0)
    text = {"perfect": right, "good": right, "bad": wrong, "empty": ""}[quality]
    return Observation(right, text=text, labels=PAIRS[language])


def test_states_its_facts(metric: Metric) -> None:
    assert metric.BETTER in get_args(Better)
    assert metric.NEEDS in get_args(Needs)
    assert metric.AGGREGATION in get_args(Aggregation)
    assert type(metric).__doc__
    for name, field in type(metric).model_fields.items():
        assert field.description, f"the option {name} has no documentation"
        assert not field.is_required(), f"the option {name} has no default"


def test_signature_names_metric_and_version(metric: Metric) -> None:
    parts = metric.signature.split("|")
    assert parts[0] == METRICS.name_of(metric)
    assert parts[-1].startswith("v")


@pytest.mark.parametrize("language", PAIRS)
def test_best_and_worst(metric: Metric, language: str) -> None:
    best = metric.score(observed(metric, language, "perfect")).value
    bad = metric.score(observed(metric, language, "bad")).value
    assert best is not None and bad is not None
    assert best == 1.0  # of a share and of a perplexity alike
    assert best > bad if metric.BETTER == "higher" else best < bad
    if metric.NEEDS == "generation":
        empty = metric.score(observed(metric, language, "empty"))
        assert empty.value in (0.0, None)


@pytest.mark.parametrize("language", PAIRS)
def test_languages_have_equal_rights(metric: Metric, language: str) -> None:
    for quality in ("perfect", "bad"):
        here = metric.score(observed(metric, language, quality)).value
        there = metric.score(observed(metric, "en" if language == "zh" else "zh", quality)).value
        assert here is not None and there is not None and (here == 1) == (there == 1)


def test_what_is_missing_is_unscored_with_a_reason(metric: Metric) -> None:
    for nothing in (Observation(None), Observation(None, text="x"), Observation("x")):
        score = metric.score(nothing)
        assert score.value is None and score.why


def test_every_option_that_changes_the_score_changes_the_signature(metric: Metric) -> None:
    for name, field in type(metric).model_fields.items():
        if isinstance(field.default, bool):
            other = type(metric).model_validate({name: not field.default})
            assert other.signature != metric.signature


def test_importing_all_metrics_is_cheap() -> None:
    code = (
        "import sys; from tuneloop.evaluate.config import EvaluateConfig\n"
        "from tuneloop.evaluate.metrics import METRICS\n"
        "EvaluateConfig(); [METRICS.load(name) for name in METRICS.names()];"
        "print([m for m in ('torch', 'transformers', 'numpy', 'scipy', 'jinja2', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
