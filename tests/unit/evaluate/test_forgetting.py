from __future__ import annotations

from pathlib import Path

import pytest

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.evaluate.config import ForgettingConfig
from tuneloop.evaluate.contestant import Answer
from tuneloop.evaluate.forgetting import forgetting_report, is_right, load_probes


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        (" Paris, which", "Paris", True),
        ("Paris", "Paris", True),
        ("Parisian", "Paris", False),
        ("12", "1", False),
        ("1.", "1", True),
        ("paris", "Paris", False),
        ("巴黎，是", "巴黎", True),
        ("巴黎是法国的首都", "巴黎", True),
        ("12岁", "12", True),
        ("12.5", "12", False),
        ("12. The", "12", True),
        ("x_1", "x", False),
        ("", "Paris", False),
    ],
)
def test_is_right(completion: str, answer: str, expected: bool) -> None:
    assert is_right(completion, answer) is expected


def test_reads_rows_and_examples(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    example = Example(
        (Message("text", "法国的首都是", train=0.0), Message("text", "巴黎", train=1.0)),
        Origin("x", 0),
        meta={"kind": "c"},
    )
    jsonl.write_lines(
        path, [{"prompt": "The capital of France is", "answer": " Paris", "kind": "c"}, example.to_json()]
    )
    first, second = load_probes(ForgettingConfig(probes=str(path)))
    assert [m.content for m in first.prompt] == ["The capital of France is"] and first.answer.content == " Paris"
    assert first.meta == {"kind": "c"} and second == example


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "holds no probes"), ([{"prompt": "x"}], "row 0: a probe needs"), ([{"prompt": "x", "answer": " "}], "row 0")],
)
def test_refuses_what_is_no_probe(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    path = tmp_path / "probes.jsonl"
    jsonl.write_lines(path, rows)
    with pytest.raises(DataError, match=message):
        load_probes(ForgettingConfig(probes=str(path)))


def test_a_missing_file_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluate\.forgetting\.probes"):
        load_probes(ForgettingConfig(probes=str(tmp_path / "none.jsonl")))


def test_report_lists_what_was_lost_and_won() -> None:
    probes = [
        Example(
            (Message("text", f"fact {i} is", train=0.0), Message("text", f"x{i}", train=1.0)),
            Origin("p", i),
            meta={"kind": "odd" if i % 2 else "even", "language": "en"},
        )
        for i in range(6)
    ]
    base = [Answer(f"x{i}") for i in range(5)] + [Answer("no")]
    tuned = [Answer("no"), *[Answer(f"x{i}.") for i in range(1, 6)]]
    found = forgetting_report("embedded", probes, {"base": base, "tuned": tuned}, 0.95)
    assert found["base"]["value"] == found["tuned"]["value"] == 5 / 6
    assert [(line["prompt"], line["answer"], line["tuned"]) for line in found["lost"]] == [("fact 0 is", "x0", "no")]
    assert [line["id"] for line in found["won"]] == [probes[5].id]
    assert set(found["slices"]) == {"kind"} and found["slices"]["kind"]["even"]["difference"]["value"] == -1 / 3
    alone = forgetting_report("embedded", probes, {"tuned": tuned}, 0.95)
    assert "base" not in alone and "lost" not in alone and alone["tuned"]["n"] == 6
