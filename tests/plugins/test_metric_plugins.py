"""Every metric keeps the promises of its family, in Chinese and English alike."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pytest

from tuneloop.core import docstrings
from tuneloop.core.conversation import Message, ToolCall
from tuneloop.evaluate.metrics import METRICS, Aggregation, Better, Choice, Metric, Needs, Observation, Score
from tuneloop.evaluate.metrics.judge import Judge
from tuneloop.evaluate.scoring import estimate, how, summary
from tuneloop.generate.engine import Request
from tuneloop.generate.scripted import ScriptedEngine

PAIRS = {"en": ("positive", "negative"), "zh": ("正面", "负面")}
LONG = {
    "en": ("The cat sat on the mat and went to sleep.", "No word of it is there anywhere."),
    "zh": ("北京是中国的首都，人口很多。", "天气好，我去跑步吧！"),
}
DECLINED = {"en": "Sorry, I cannot help.", "zh": "抱歉，我无法回答。"}
NOTHING = Observation(None)


@dataclass(frozen=True)
class Case:
    """What a metric gives its best and its worst value for, in one language."""

    best: Observation
    worst: Observation
    value: float = 1.0
    """Of the best."""
    empty: Observation | None = None
    """The worst with an empty answer, where the metric looks at one."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])


def case(name: str, language: str) -> Case:
    """A metric's own case, else that of its needs."""
    right, wrong = LONG[language] if name in ("rouge_2", "repetition", "length") else PAIRS[language]
    labels = PAIRS[language]
    chosen = [Choice(text, nll, 2.0) for text, nll in ((right, 0.0), (wrong, 900.0))]
    answered = Observation(right, text=right, labels=labels)
    mistaken = replace(answered, text=wrong)
    usual = {
        "generation": Case(answered, mistaken, empty=replace(answered, text="")),
        "likelihood": Case(Observation(right, nll=0.0, tokens=3.0), Observation(right, nll=9.0, tokens=3.0)),
        "choices": Case(Observation(right, choices=tuple(chosen)), Observation(wrong, choices=tuple(chosen))),
        "samples": Case(Observation(right, samples=(right, right, wrong), labels=labels),
                        Observation(right, samples=(wrong, wrong, right), labels=labels)),
    }  # fmt: skip
    call = {"en": ToolCall("find", {"city": "Rome"}), "zh": ToolCall("find", {"city": "罗马"})}[language]
    expected = Message("assistant", "", tool_calls=(call,))
    loop = Observation(None, text=" ".join([right] * 20))
    pattern = {"pattern": f"^{right}$"}
    own = {
        "bits_per_byte": replace(usual["likelihood"], value=0.0),
        "calibration": replace(usual["choices"], value=0.0),
        "numeric_answer": Case(*(Observation("72", text=text) for text in ("#### 72", "７３")),
                               empty=Observation("72", text="")),
        "regex": Case(*(Observation(None, text=text, meta=pattern) for text in (right, wrong)),
                      empty=Observation(None, text="", meta=pattern)),
        "json_valid": Case(*(Observation(None, text=text) for text in (f'["{right}"]', wrong)),
                           empty=Observation(None, text="")),
        "tool_calls": Case(Observation(None, text="", calls=(call,), expected=expected),
                           Observation(None, text=wrong, expected=expected),
                           empty=Observation(None, text="", expected=expected)),
        "repetition": Case(Observation(None, text=right), loop, value=0.0, empty=Observation(None, text="")),
        "refusal_rate": Case(Observation(None, text=right),
                             Observation(None, text=DECLINED[language]),
                             value=0.0, empty=Observation(None, text="")),
        "length": Case(Observation(right, text=right), loop, empty=Observation(right, text=""),
                       options={"relative": True}),
        "judge": Case(replace(answered, reference=wrong), replace(answered, reference=right, text=wrong),
                      empty=replace(answered, text="")),
    }  # fmt: skip
    own["length"] = replace(own["length"], worst=replace(loop, reference=right))
    return own.get(name, usual[METRICS.load(name).NEEDS])


def prefers_right(request: Request) -> str:
    """A judge that knows the right answers of both languages."""
    text = request.messages[-1].content
    first, second = (text.partition(f"<answer_{name}>")[2].partition("</answer_")[0].strip() for name in "AB")
    right = {pair[0] for pair in PAIRS.values()}
    return "[[A]]" if first in right else "[[B]]" if second in right else "[[C]]"


def made(name: str, options: dict[str, Any] | None = None) -> Metric:
    metric = METRICS.make({name: options or {}})
    return metric.asking(ScriptedEngine(prefers_right)) if isinstance(metric, Judge) else metric


@pytest.fixture(params=METRICS.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def metric(name: str) -> Metric:
    return made(name)


def number(metric: Metric, scores: Sequence[Score]) -> float | None:
    return estimate(how(metric), scores, 0.95)["value"]


def test_states_its_facts(metric: Metric) -> None:
    assert metric.BETTER in get_args(Better)
    assert metric.NEEDS in get_args(Needs)
    assert metric.AGGREGATION in get_args(Aggregation)
    assert (metric.sampling is not None) == (metric.NEEDS == "samples")
    assert type(metric).__doc__
    for name, option in type(metric).model_fields.items():
        assert docstrings.of_fields(type(metric)).get(name), f"the option {name} has no documentation"
        assert not option.is_required(), f"the option {name} has no default"


def test_signature_names_metric_and_version(metric: Metric) -> None:
    parts = metric.signature.split("|")
    assert parts[0] == METRICS.name_of(metric)
    assert parts[-1].startswith("v")


@pytest.mark.parametrize("language", PAIRS)
def test_best_and_worst(name: str, language: str) -> None:
    given = case(name, language)
    metric = made(name, given.options)
    best, worst = ([metric.score(one)] for one in (given.best, given.worst))
    high, low = number(metric, best), number(metric, worst)
    assert high is not None and low is not None, (best, worst)
    assert high == pytest.approx(given.value)
    if metric.BETTER == "neither":
        assert high != low
    else:
        assert high > low if metric.BETTER == "higher" else high < low
    if metric.BOUNDED:
        assert 0 <= low <= 1
    if given.empty is not None:
        empty = metric.score(given.empty)
        assert empty.value == 0.0 or (empty.value is None and empty.why)


@pytest.mark.parametrize("language", PAIRS)
def test_many_at_once_are_the_same_as_one_by_one(name: str, language: str) -> None:
    given = case(name, language)
    metric = made(name, given.options)
    rows = [given.best, given.worst, NOTHING, given.best]
    done: list[int] = []
    assert metric.score_all(rows, done.append) == [metric.score(row) for row in rows]
    assert sum(done) == len(rows)
    found = summary(
        metric, {"base": metric.score_all(rows[::-1], done.append), "tuned": [*map(metric.score, rows)]}, 0.95
    )
    assert found["tuned"]["n"] == 3 and sum(found["unscored"]["base"].values()) == 1
    assert found["tuned"]["low"] <= found["tuned"]["value"] <= found["tuned"]["high"]
    assert found["tuned"]["value"] == found["base"]["value"] and found["difference"]["value"] == 0
    statistics = {len(score.statistics) for score in map(metric.score, rows) if score.value is not None}
    assert len(statistics) == 1 and (statistics != {0}) == (metric.AGGREGATION == "corpus")
    if metric.AGGREGATION == "corpus":
        assert np.isnan(metric.combine(np.zeros((1, *statistics)))).all()  # of nothing there is no number, never 0
    details = metric.details(rows, metric.score_all(rows, done.append))
    assert details is None or isinstance(details["kind"], str)
    assert metric.details([NOTHING], [metric.score(NOTHING)]) is None


def test_what_is_missing_is_unscored_with_a_reason(metric: Metric) -> None:
    no_reference = (Observation(None, text="x"),) if metric.REFERENCE else ()
    for nothing in (NOTHING, Observation("x"), *no_reference):
        score = metric.score(nothing)
        assert score.value is None and score.why


def test_likelihoods_that_are_no_numbers_are_unscored(name: str, metric: Metric) -> None:
    for wrong in (float("nan"), float("inf")):
        row = case(name, "en").best
        if metric.NEEDS == "likelihood":
            row = replace(row, nll=wrong)
        elif metric.NEEDS == "choices":
            row = replace(row, choices=tuple(replace(choice, nll=wrong) for choice in row.choices))
        else:
            continue
        score = metric.score(row)
        assert score.value is None and score.why


def test_every_option_that_changes_the_score_changes_the_signature(metric: Metric) -> None:
    for name, option in type(metric).model_fields.items():
        others = [not option.default] if isinstance(option.default, bool) else []
        others += [other for other in get_args(option.annotation) if isinstance(other, str) and other != option.default]
        for other in others:
            assert type(metric).model_validate({name: other}).signature != metric.signature, name


def test_importing_all_metrics_is_cheap() -> None:
    heavy = "torch transformers numpy scipy jinja2 matplotlib polars jsonschema httpx2 regex".split()
    code = (
        "import sys; from tuneloop.evaluate.config import EvaluateConfig\n"
        "from tuneloop.evaluate.metrics import METRICS\n"
        "EvaluateConfig(); [METRICS.make(name).signature for name in METRICS.names()];"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
