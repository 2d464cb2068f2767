from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin, ToolCall
from tuneloop.core.errors import DataError
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Contestant, Local
from tuneloop.evaluate.evaluate import evaluate
from tuneloop.generate.engine import Request
from tuneloop.generate.scripted import ScriptedEngine


class Letters:
    """A renderer whose tokens are characters; a prompt that says so cannot be rendered."""

    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: list(text))

    def render(self, example: Example) -> list[Example]:
        return [example, example] if example.meta.get("twice") else [example]


def entrant(say: Callable[[str], str], nll: float, opened: list[str] | None = None) -> Any:
    @contextmanager
    def opening() -> Iterator[Contestant]:
        if opened is not None:
            opened.append("open")

        def answer(request: Request) -> str | None:
            asked = request.messages[-1].content
            return None if "too long" in asked else say(asked)

        score = lambda rows: [(nll * len(row.answer.content), float(len(row.answer.content))) for row in rows]  # noqa: E731
        yield Contestant(ScriptedEngine(answer), Local(Letters(), score))  # type: ignore[arg-type]
        if opened is not None:
            opened.append("close")

    return opening


def example(asked: str, answer: str, row: int, **meta: Any) -> Example:
    return Example((Message("user", asked), Message("assistant", answer)), Origin("t", row), meta=meta)


@pytest.fixture
def examples() -> list[Example]:
    rows = [example(f"q{i}", f"a{i}", i, kind="even" if i % 2 == 0 else "odd", language="en") for i in range(12)]
    rows.append(example("这是什么？", "答案", 12, kind="odd", language="zh"))
    rows.append(example("too long", "x", 13))
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}),))
    rows.append(Example((Message("user", "call"), call), Origin("t", 14)))
    return rows


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return SimpleNamespace(out=tmp_path)


def right(asked: str) -> str:
    return "答案" if asked == "这是什么？" else asked.replace("q", "a")


def test_report_and_samples_have_the_documented_shape(examples: list[Example], run: Any) -> None:
    config = EvaluateConfig(slices=("kind+language",))
    opened: list[str] = []
    entrants = {"tuned": entrant(right, 0.1, opened), "base": entrant(lambda asked: "hm", 3.0, opened)}
    found = evaluate(config, examples, entrants, run)
    assert opened == ["open", "close", "open", "close"], "never both in memory"
    assert jsonl.read(run.out / "report.json") == found.value
    value = found.value
    assert value["version"] == 1 and set(value["metrics"]) == {"exact_match", "f1", "perplexity"}
    match = value["metrics"]["exact_match"]
    assert match["tuned"]["value"] == 1 and match["tuned"]["n"] == 13 and match["base"]["value"] == 0
    assert set(match["difference"]) >= {"value", "low", "high", "p"} and match["difference"]["p"] < 0.001
    assert match["unscored"]["tuned"] == {
        "the script has no answer": 1, "no reference text (a tool call or an empty answer)": 1
    }  # fmt: skip
    assert value["metrics"]["perplexity"]["tuned"]["value"] == pytest.approx(2.718281828**0.1)
    assert value["metrics"]["perplexity"]["better"] == "lower"
    slices = value["slices"]["kind+language"]
    assert {key: entry["exact_match"]["tuned"]["n"] for key, entry in slices.items()} == {
        "even · en": 6, "odd · en": 6, "odd · zh": 1
    }  # fmt: skip
    lines = list(jsonl.read_lines(run.out / "samples.jsonl"))
    assert lines == found.samples and len(lines) == len(examples)
    scores = lines[0].pop("scores")
    assert scores["exact_match"] == scores["f1"] == {"base": 0.0, "tuned": 1.0}
    assert scores["perplexity"] == {"base": pytest.approx(20.0855369), "tuned": pytest.approx(1.10517092)}
    assert lines[0].pop("statistics") == {"perplexity": {"base": [6.0, 2.0], "tuned": pytest.approx([0.2, 2.0])}}
    assert lines[0].pop("slices") == {"kind+language": ["even · en"]}
    assert lines[0] == {
        "id": examples[0].id,
        "prompt": [{"role": "user", "content": "q0"}],
        "reference": "a0",
        "base": "hm",
        "tuned": "a0",
        "meta": {"kind": "even", "language": "en"},
    }
    assert lines[13]["tuned"] is None and lines[13]["scores"]["exact_match"] == {"base": None, "tuned": None}


def test_without_base(examples: list[Example], run: Any) -> None:
    entrants = {"base": entrant(right, 1.0), "tuned": entrant(right, 1.0)}
    for config, given in [(EvaluateConfig(base=False), entrants), (EvaluateConfig(), {"tuned": entrants["tuned"]})]:
        found = evaluate(config, examples, given, run)
        assert "base" not in found.value["metrics"]["f1"] and "difference" not in found.value["metrics"]["f1"]
        assert "base" not in found.samples[0]
        assert (run.out / "report.html").exists()


def test_answers_are_limited_and_the_cut_ones_counted(examples: list[Example], run: Any) -> None:
    talker = {"tuned": entrant(lambda asked: asked * 20, 1.0)}
    found = evaluate(EvaluateConfig(metrics=["exact_match"]), examples, talker, run)
    longest = max(len(row.answer.content) for row in examples)
    assert found.value["answers"]["tuned"].pop("seconds") >= 0
    assert found.value["answers"]["tuned"] == {
        "n": 14, "unfinished": 14, "max_new_tokens": 2 * longest + 8, "known": 0
    }  # fmt: skip
    assert max(len(line["tuned"] or "") for line in found.samples) == 2 * longest + 8
    found = evaluate(EvaluateConfig(metrics=["exact_match"], max_new_tokens=3), examples, talker, run)
    assert max(len(line["tuned"] or "") for line in found.samples) == 3


def test_an_example_of_several_turns_adds_up(run: Any) -> None:
    rows = [example("q", "ab", 0, twice=True), example("q", "abcd", 1)]
    found = evaluate(EvaluateConfig(metrics=["perplexity"]), rows, {"tuned": entrant(right, 0.5)}, run)
    assert found.value["metrics"]["perplexity"]["tuned"]["value"] == pytest.approx(2.718281828**0.5)
    assert found.samples[0]["tuned"] is None, "no metric asked for answers"


def test_an_empty_split_says_so(run: Any) -> None:
    with pytest.raises(DataError, match="the test split is empty"):
        evaluate(EvaluateConfig(), [], {"tuned": entrant(right, 1.0)}, run)


def test_classification_knows_its_labels(run: Any) -> None:
    rng = random.Random(0)
    rows = [example(f"q{i}", rng.choice(["好评", "差评"]), i) for i in range(30)]
    wanted = {row.prompt[-1].content: row.answer.content for row in rows}
    tuned = {"tuned": entrant(lambda asked: f"答：{wanted[asked]}。", 1.0)}
    found = evaluate(EvaluateConfig(metrics=["accuracy", "exact_match"]), rows, tuned, run)
    assert found.value["metrics"]["accuracy"]["tuned"]["value"] == 1
    assert found.value["metrics"]["exact_match"]["tuned"]["value"] == 0


def test_config_refuses(tmp_path: Path) -> None:
    for given, message in [
        ({"metrics": ["f1", "f1"]}, "'f1' stands twice"),
        ({"metrics": []}, "at least one metric"),
        ({"metrics": ["rouge"]}, "did you mean 'rouge_l'"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"confidence": 95}, "less than 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            EvaluateConfig.model_validate(given)
