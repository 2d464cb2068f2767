from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.pages.whole import check
from tuneloop.evaluate.metrics import Score
from tuneloop.evaluate.metrics.exact_match import ExactMatch
from tuneloop.evaluate.metrics.perplexity import Perplexity
from tuneloop.evaluate.page import pick_samples, to_html
from tuneloop.evaluate.report import Context, Report, read, to_markdown, verdict, write_pages
from tuneloop.evaluate.scoring import PROPORTION, How, compare, summary
from tuneloop.evaluate.table import to_rich

EVIL = '<script>alert("x")</script> & | `码` </pre>'


def sample(i: int, base: float, tuned: float) -> dict[str, Any]:
    return {
        "id": f"id{i}", "prompt": [{"role": "system", "content": EVIL}, {"role": "user", "content": f"问题{i} {EVIL}"}],
        "reference": EVIL, "base": EVIL, "tuned": "" if i % 2 else EVIL,
        "scores": {"exact_match": {"base": base, "tuned": tuned}}, "meta": {"kind": f"k{i % 3}", "language": EVIL},
    }  # fmt: skip


@pytest.fixture
def report() -> Report:
    scores = {"base": [Score(0.0)] * 19 + [Score(None, EVIL)], "tuned": [Score(float(i > 2)) for i in range(20)]}
    surprise = {"base": [Score(30.0, weight=3.0)] * 20, "tuned": [Score(1.0 + i / 10, weight=2.0) for i in range(20)]}
    facts = compare(PROPORTION, scores, 0.95)
    line = {"id": "1", "prompt": EVIL, "answer": EVIL, "base": EVIL, "tuned": EVIL}
    value = {
        "version": 1, "split": "test", "n": 20, "confidence": 0.95,
        "metrics": {
            "exact_match": summary(ExactMatch(), scores, 0.95), "perplexity": summary(Perplexity(), surprise, 0.95)
        },
        "slices": {"kind+language": {EVIL: {
            "exact_match": facts, "perplexity": compare(How("geometric"), surprise, 0.95)
        }}},
        "answers": {"base": {"n": 20, "unfinished": 7, "max_new_tokens": 12}},
        "forgetting": {"probes": "embedded", "better": "higher", "signature": "s", **facts,
                       "slices": {"kind": {EVIL: facts}}, "lost": [line] * 50, "won": [line]},
    }  # fmt: skip
    return Report(value, [sample(i, 0.0, float(i > 2)) for i in range(20)])


CURVES = [
    {"step": i, "loss": 5 / i, "learning_rate": 1e-3 / i, **({"val_loss": 6 / i} if i % 5 == 0 else {})}
    for i in range(1, 50)
]
CONTEXT = Context(
    title=EVIL,
    curves=CURVES,
    card={
        "rows": {"in": 10, "kept": 8, "repaired": 1, "dropped": {EVIL: 2}},
        "splits": {"train": 8},
        "findings": [{"level": "WARN", "code": "c", "count": 3, "why": EVIL}],
    },
    recipe=f"name: {EVIL}",
    versions={"torch": EVIL},
    run=EVIL,
    commands=[EVIL],
)


def test_html_is_whole_safe_and_self_contained(report: Report) -> None:
    page = to_html(report, CONTEXT)
    check(page)
    assert "&lt;script&gt;" in page and "问题" in page
    assert "and 10 more in report.json" in page


def test_html_of_the_least(report: Report) -> None:
    value = {**report.value, "slices": {}, "answers": {}}
    del value["forgetting"]
    scores = {"tuned": [Score(None, "no answer")]}
    value["metrics"] = {
        "exact_match": summary(ExactMatch(), scores, 0.95),
        "from_elsewhere": summary(ExactMatch(), scores, 0.95),
    }
    page = to_html(Report(value, []), Context())
    assert "not measured" in page and "difference</th>" not in page and "Forgetting" not in page
    assert "nan" not in page.lower().replace("finance", "")


def test_samples_mix_right_and_wrong_the_same_each_time(report: Report) -> None:
    chosen = pick_samples(report.samples, "exact_match")
    assert chosen == pick_samples(list(reversed(report.samples)), "exact_match")
    assert len(chosen) == 10
    assert sum(line["scores"]["exact_match"]["tuned"] == 0 for line in chosen) == 3
    assert {line["meta"]["kind"] for line in chosen} == {"k0", "k1", "k2"}
    hard = [sample(i, 0.0, float(i > 18)) for i in range(20)]
    assert len(pick_samples(hard, "exact_match")) == 10
    assert pick_samples([], None) == []


def test_markdown_has_the_numbers_and_survives_strange_names(report: Report) -> None:
    text = to_markdown(report, replace(CONTEXT, run="runs/`1`"))
    assert "Run: `` runs/`1` ``" in text
    assert "| exact\\_match | 0.000 (0.000 … 0.168) | 0.850 (0.640 … 0.948) |" in text
    assert "7 of 20 answers were cut at 12 tokens" in text
    assert "<script>" not in text.replace("\\<script\\>", "")
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 7, line


def test_pages_can_be_written_again_from_the_folder(report: Report, tmp_path: Path) -> None:
    from tuneloop.core import jsonl

    jsonl.write(tmp_path / "report.json", report.value)
    jsonl.write_lines(tmp_path / "samples.jsonl", report.samples)
    write_pages(tmp_path, read(tmp_path), CONTEXT)
    assert (tmp_path / "report.html").read_text("utf-8") == to_html(report, CONTEXT)
    assert (tmp_path / "report.md").read_text("utf-8") == to_markdown(report, CONTEXT)


def test_terminal_table(report: Report) -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(to_rich(report))
    text = console.export_text()
    assert "exact_match" in text and "0.640–0.948" in text and "+0.842" in text and "< 0.001" in text
    assert "facts lost by tuning: 50, won: 1" in text


def test_verdict() -> None:
    assert verdict({"value": -2.0, "p": 0.01}, "lower") == "better"
    assert verdict({"value": -2.0, "p": 0.01}, "higher") == "worse"
    assert verdict({"value": 0.2, "p": 0.06}, "higher") == "even"
    assert verdict({"value": 0.2, "p": 0.06}, "higher", confidence=0.9) == "better"
    assert verdict(None, "higher") == "unknown"
