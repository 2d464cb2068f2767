from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.evaluate.config import EvaluateConfig, ForgettingConfig
from tuneloop.evaluate.contestant import Answer, Likelihood
from tuneloop.evaluate.forgetting import Ability, Probed, Probes, forgetting_report, load
from tuneloop.evaluate.metrics import Choice
from tuneloop.evaluate.metrics.f1 import F1
from tuneloop.evaluate.metrics.multiple_choice import MultipleChoice
from tuneloop.evaluate.observing import Observed
from tuneloop.evaluate.recall import BitsPerByte, Match


def facts(count: int = 6) -> list[Example]:
    return [
        Example(
            (Message("text", f"fact {i} is", train=0.0), Message("text", f"x{i}", train=1.0)),
            Origin("p", i),
            meta={"kind": "odd" if i % 2 else "even", "language": "en"},
        )
        for i in range(count)
    ]


def report_of(ability: Ability, **seen: Observed) -> dict[str, Any]:
    probed = {who: Probed({ability.name: one}) for who, one in seen.items()}
    return forgetting_report(Probes([ability], []), probed, 0.95)


def test_report_lists_what_was_lost_and_won() -> None:
    probes = facts()
    ability = Ability("facts", probes, Match(prose=True), 24, "embedded")
    base = Observed([Answer(f"x{i}") for i in range(5)] + [Answer("no")])
    tuned = Observed([Answer("x2 of course"), *[Answer(f"x{i}.") for i in range(1, 6)]])
    found = report_of(ability, base=base, tuned=tuned)
    assert found["base"]["value"] == found["tuned"]["value"] == 5 / 6
    lost = [(line["prompt"], line["answer"], line["tuned"], line["instead"]) for line in found["lost"]]
    assert lost == [("fact 0 is", "x0", "x2 of course", "x2")]
    assert [line["id"] for line in found["won"]] == [probes[5].id]
    assert found["contradicted"]["value"] == 1 / 5 and found["contradicted"]["n"] == 5
    assert set(found["slices"]) == {"kind"} and found["slices"]["kind"]["even"]["difference"]["value"] == -1 / 3
    assert found["abilities"]["facts"]["lost"] == found["lost"] and found["probes"] == "embedded"
    alone = report_of(ability, tuned=tuned)
    assert "base" not in alone and "lost" not in alone and "kl" not in alone and alone["tuned"]["n"] == 6


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("said", ["x0", "nothing of the kind"])
def test_all_equal_and_a_single_item_are_no_difference(count: int, said: str) -> None:
    ability = Ability("facts", [facts()[0]] * count, Match(prose=True), 24)
    given = Observed([Answer(said)] * count)
    found = report_of(ability, base=given, tuned=given)
    assert found["difference"]["value"] == 0 and found["difference"]["p"] == 1
    assert found["lost"] == found["won"] == []
    assert found["contradicted"]["n"] == (count if said == "x0" else 0)


def test_texts_are_measured_in_bits_per_byte_and_perplexity() -> None:
    texts = [Example((Message("text", "法国 ab", train=1.0),), Origin("t", i)) for i in range(3)]  # 9 bytes each
    ability = Ability("texts", texts, BitsPerByte(), 24)
    import math

    base = Observed(likelihoods=[Likelihood(9 * math.log(2), 3.0)] * 3)
    tuned = Observed(likelihoods=[Likelihood(18 * math.log(2), 3.0)] * 3)
    found = report_of(ability, base=base, tuned=tuned)
    assert found["base"]["value"] == pytest.approx(1.0) and found["difference"]["value"] == pytest.approx(1.0)
    assert found["perplexity"]["tuned"]["value"] == pytest.approx(2.0**6) and "lost" not in found
    broken = Observed(likelihoods=[Likelihood(float("nan"), 3.0), *tuned.likelihoods[1:]])
    assert report_of(ability, base=base, tuned=broken)["tuned"]["n"] == 2


def test_of_choices_another_one_is_a_contradiction() -> None:
    question = Example(
        (Message("user", "Which?", train=0.0), Message("assistant", "cat", train=1.0)),
        Origin("c", 0),
        meta={"choices": ["cat", "elephant"]},
    )
    ability = Ability("quiz", [question], MultipleChoice(per="byte"), 24)
    base = Observed(choices=[[Choice("cat", 3.0, 1), Choice("elephant", 9.0, 3)]])  # 1 and 9/8 nats a byte
    tuned = Observed(choices=[[Choice("cat", 3.0, 1), Choice("elephant", 4.0, 3)]])
    found = report_of(ability, base=base, tuned=tuned)
    assert found["base"]["value"] == 1 and found["tuned"]["value"] == 0
    assert [line["instead"] for line in found["lost"]] == ["elephant"]


def test_any_metric_of_the_family_scores_a_set() -> None:
    ability = Ability("words", facts(2), F1(), 24)
    given = Observed([Answer("x0"), Answer("y")])
    found = report_of(ability, base=given, tuned=given)
    assert found["base"]["value"] == 0.5 and found["aggregation"] == "mean" and "lost" not in found


# -- the recipe --------------------------------------------------------------------------------------------------------
def sets(folder: Path, **files: list[dict[str, Any]] | str) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, rows in files.items():
        path = folder / (f"{name}.txt" if isinstance(rows, str) else f"{name}.jsonl")
        if isinstance(rows, str):
            path.write_text(rows, "utf-8")
        else:
            jsonl.write_lines(path, rows)
        out[name] = str(path)
    return out


def test_several_sets_are_each_scored_by_what_their_rows_have(tmp_path: Path) -> None:
    named = sets(
        tmp_path,
        prose=[{"prompt": "The capital of France is", "answer": "Paris"}],
        chat=[{"question": "Capital of France?", "answer": ["Paris", "Paris, France"]}],
        quiz=[{"question": "Which?", "answer": "a", "choices": ["a", "b"]}],
        texts="One passage.\n\nAnother.",
    )
    config = EvaluateConfig.model_validate({"forgetting": {"probes": named | {"facts": "embedded"}, "limit": 5}})
    assert config.forgetting is not None and len(config.forgetting.files) == 4
    found = load(config.forgetting)
    kinds = {ability.name: ability.metric.signature.split("|")[0] for ability in found.abilities}
    assert kinds == {
        "prose": "completion", "facts": "completion", "chat": "chat", "quiz": "multiple_choice",
        "texts": "bits_per_byte",
    }  # fmt: skip
    assert len(found.neutral) == 1 + 1 + 1 + 2 + 5
    f1 = ForgettingConfig.model_validate({"probes": {"chat": {"path": named["chat"], "score": "f1"}}, "neutral": None})
    assert isinstance(load(f1).abilities[0].metric, F1) and load(f1).neutral == []


@pytest.mark.parametrize(
    ("rows", "score", "message"),
    [
        ([{"question": "x"}], "auto", "row 0 has no answer"),
        ([{"text": "x"}, {"prompt": "x", "answer": "y"}], "auto", "1 of 2 rows do not fit score: match"),
        ([{"prompt": "x", "answer": "y"}], "choices", "each row needs `choices`"),
        ([{"question": "x", "answer": "y", "choices": ["a", "b"]}], "auto", "`answer` one of them"),
        ([{"question": "x", "answer": "y", "choices": "y"}], "auto", "at least two"),
        ([{"prompt": "x", "answer": "y"}], "text", "texts are rows with `text` alone"),
        ([{"prompt": "x", "answer": "y"}, {"question": "x", "answer": "y"}], "auto", "make two sets"),
    ],
)
def test_a_set_that_does_not_fit_its_score_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], score: str, message: str
) -> None:
    path = sets(tmp_path, rows=rows)["rows"]
    with pytest.raises(DataError, match=message):
        load(ForgettingConfig.model_validate({"probes": {"mine": {"path": path, "score": score}}}))


def test_no_set_at_all_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="no set of probes"):
        ForgettingConfig(probes={})


def test_a_missing_file_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluate\.forgetting\.probes"):
        load(ForgettingConfig(probes=str(tmp_path / "none.jsonl")))
