"""The card as a whole: its shape, its sums, and pages for whatever stands in the data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.data.audit_facts import alpaca, card_of, codes, facts, forecast, pair, pairs
from tests.unit.pages.whole import check
from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, JsonObject, Message, Origin, ToolCall
from tuneloop.data.audit import audit, to_html, to_markdown
from tuneloop.data.audit.card import QUESTIONS
from tuneloop.data.facts import SourceFacts
from tuneloop.data.findings import finding

ROOT = Path(__file__).resolve().parents[3]
EVIL = '<script>alert("x")</script> & | `码` </pre>'


def pages(card: JsonObject) -> tuple[str, str]:
    """Both pages, from the card as it is read back from its file."""
    back = json.loads(jsonl.dump(card))
    assert back == card
    html, markdown = to_html(back, EVIL), to_markdown(back)
    check(html)
    for line in markdown.splitlines():
        assert "<script>" not in line.replace("\\<script\\>", "")
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", html)
    return html, markdown


def test_the_ledger_adds_up() -> None:
    examples = [*pairs([(f"问 {n}", f"答 {n}") for n in range(50)]), pair("q", "a", source="b.jsonl", repaired=True)]
    dropped = {
        ("a.jsonl", "language", "language is fr"): 4,
        ("a.jsonl", "length", "too long"): 2,
        ("b.jsonl", "answer", "none"): 3,
    }
    card = card_of(examples, dropped=dropped)
    assert card["version"] == 1
    assert card["rows"] == {"in": 60, "kept": 51, "repaired": 1, "dropped": {"language": 4, "answer": 3, "length": 2}}
    assert sum(card["splits"].values()) == 51
    assert [source["rows"] for source in card["sources"]] == [
        {"in": 56, "kept": 50, "repaired": 0, "dropped": {"language": 4, "length": 2}},
        {"in": 4, "kept": 1, "repaired": 1, "dropped": {"answer": 3}},
    ]
    assert card["ledger"]["reasons"][0] == {"step": "language", "reason": "language is fr", "rows": 4}
    html, markdown = pages(card)
    assert "60 rows in = 51 kept + 9 dropped" in html and "60 rows in = 51 kept + 9 dropped" in markdown
    assert "language is fr" in html and codes(card)["many_dropped"] == "WARN"


def test_a_row_that_is_nowhere_is_a_bug() -> None:
    known = facts(pairs([("q", "a"), ("r", "b")]))
    with pytest.raises(AssertionError):
        audit(replace(known, rows_in=3))
    with pytest.raises(AssertionError):
        audit(replace(known, sources=[SourceFacts("a", "a.jsonl", "alpaca", 1.0, "utf-8", 3, 3)], rows_in=3))
    with pytest.raises(AssertionError):
        audit(facts(pairs([("q", "a")]), splits=["elsewhere"]))


def test_a_file_named_twice_is_one_source() -> None:
    examples = pairs([(f"q{n}", "a") for n in range(4)])
    source = SourceFacts("a", "a.jsonl", "alpaca", 1.0, "utf-8", 2, 4, {"numbers as text": 1})
    card = card_of([*examples[:2], *examples[:2]], sources=[source, source])
    (ledger,) = card["sources"]
    assert ledger["rows"]["in"] == 4 and ledger["available"] == 4 and ledger["notes"] == {"numbers as text": 2}


def test_what_was_decided_and_left_out_is_said() -> None:
    source = SourceFacts("工单", "a.jsonl", "alpaca", 1.0, "utf-8", 2, 9, {"empty system prompts left out": 2})
    card = card_of(pairs([("q", "a"), ("r", "b")]), splits=["train"] * 2, sources=[source])
    said = {found["code"]: found for found in card["findings"]}
    assert said["not_all_used"]["count"] == 7 and "2 of 9 rows" in said["not_all_used"]["message"]
    assert said["decided"]["message"] == "工单: empty system prompts left out"
    assert said["empty_val"]["level"] == "WARN"


@pytest.mark.parametrize(("rows", "shares", "expected"), [
    (0, {"train": 0.8, "val": 0.1, "test": 0.1}, {"empty_train": "ERROR", "empty_val": "WARN", "empty_test": "WARN"}),
    (3, {"train": 1.0, "val": 0.0, "test": 0.0}, {}),
])  # fmt: skip
def test_empty_splits(rows: int, shares: dict[str, float], expected: dict[str, str]) -> None:
    card = card_of(pairs([(f"q{n}", f"a{n}") for n in range(rows)]), splits=["train"] * rows, shares=shares)
    assert codes(card) == expected
    pages(card)


def test_findings_say_what_to_do_the_worst_first() -> None:
    steps = [finding("INFO", "balanced", 3, "by label"), finding("ERROR", "contamination_x", 2, EVIL)]
    card = card_of(pairs([("q", "a")]), splits=["train"], findings=steps)
    levels = [found["level"] for found in card["findings"]]
    assert levels == sorted(levels, key=("ERROR", "WARN", "INFO").index) and levels[0] == "ERROR"
    assert all(found.get("next") for found in card["findings"] if found["level"] == "WARN")
    html, markdown = pages(card)
    assert "give val a larger share" in html and "give val a larger share" in markdown


@pytest.mark.parametrize("examples", [
    [{"source": "s.jsonl", "row": 7, "split": "val"}],
    [{"kept": {"id": "1", "origin": {"source": "s.jsonl", "row": 7}}, "dropped": {"id": "2"}}],
    [{"kind": "label", "rows": [{"id": "1", "origin": {"source": "s.jsonl", "row": 7}, "prompt": EVIL}]}],
])  # fmt: skip
def test_places_are_shown_however_a_step_nests_them(examples: list[JsonObject]) -> None:
    step = finding("WARN", "x", 1, "m", examples=examples)
    html, _ = pages(card_of(pairs([("q", "a")]), findings=[step]))
    assert "s.jsonl, row 7" in html


def test_one_row_and_none_and_documents() -> None:
    documents = [Example((Message("text", f"第{n}篇。" * 20, train=1.0),), Origin("d.txt", n)) for n in range(3)]
    for examples in (pairs([("写一首诗", "春眠不觉晓")]), [], documents):
        card = card_of(examples)
        pages(card)
        assert ("languages" in card) == bool(examples)
    assert "length_imbalance" not in codes(card_of(documents * 40))


def test_tool_calls_without_words_are_counted() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "北京"}),))
    talk = (
        Message("system", "s"),
        Message("user", "天气？"),
        call,
        Message("tool", "21C"),
        Message("assistant", "21度"),
    )
    card = card_of([Example(talk, Origin("a.jsonl", 0), tools=({"type": "function"},))])
    found = card["conversations"]
    assert found["with_tools"] == found["with_calls"] == found["with_system"] == 1
    assert found["roles"] == {"assistant": 2, "system": 1, "user": 1, "tool": 1}
    pages(card)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(
    st.lists(
        st.tuples(st.text(max_size=60), st.text(min_size=1, max_size=60), st.none() | st.text(max_size=8)), max_size=12
    )
)
def test_any_text_makes_a_card(rows: list[tuple[str, str, str | None]]) -> None:
    examples = [pair(asked, answer, row, label=label) for row, (asked, answer, label) in enumerate(rows)]
    pages(card_of(examples))


def test_nothing_of_the_data_is_markup() -> None:
    examples = [pair(f"{EVIL} {n}", EVIL, n, source=EVIL, label=f"{EVIL}/{n % 30}") for n in range(60)]
    card = card_of(examples, dropped={(EVIL, EVIL, EVIL): 9}, forecast=forecast([600] * 60, [0] * 60))
    html, _ = pages(card)
    assert "&lt;script&gt;" in html
    assert (
        {question.name for question in QUESTIONS} - set(card)
        == {"contamination", "meaning"}
        == set(card["not_checked"])
    )


def test_personal_data_is_never_written() -> None:
    secret = "zhang.san@example-mail.cn"
    examples = [
        pair(f"请写信给{secret}，谢谢。" if n < 9 else f"请写第{n}封信", f"好的 {n}", n, label=f"l{n % 2}")
        for n in range(20)
    ]
    card = card_of(
        [*examples, *(pair(one.messages[0].content, "别的", 30 + n, label="l3") for n, one in enumerate(examples[:3]))]
    )
    html, markdown = pages(card)
    assert card["pii"]["kinds"]["email"]["strong"] == 12 and codes(card)["pii_contact"] == "WARN"
    for text in (html, markdown, json.dumps(card, ensure_ascii=False)):
        assert secret not in text and "example-mail" not in text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_real_rows_make_a_full_card(shared: Path, language: str) -> None:
    card = card_of(alpaca(shared / "alpaca" / f"alpaca_{language}.json"))
    assert card["rows"]["in"] == 600 and not card["duplicates"]["prompts"]["straddling"]
    assert next(iter(card["languages"]["rows"])) == language
    part = card["tasks"]["languages"][language]
    assert (part["recognised"] + part["questions"]) / part["rows"] > 0.9
    assert card["positions"]["located"] > 200 and card["diversity"]["topics"]["effective"] > 100
    html, _ = pages(card)
    assert html.count("<svg") >= 7


def test_every_code_stands_in_the_documentation() -> None:
    documented = (ROOT / "docs" / "audit.md").read_text("utf-8")
    codes = {
        code.replace("{name}", "val").replace("{split}", "val")
        for path in (ROOT / "src" / "tuneloop" / "data" / "audit").glob("*.py")
        for code in re.findall(
            r'(?:finding\(\s*(?:level|"[A-Z]+"),\s*|"ERROR", |"WARN", |code = )f?"([a-z_{}]+)"', path.read_text("utf-8")
        )
    }
    assert len(codes) > 20 and {"leak_prompt", "pii", "empty_val", "near_leak_val"} <= codes | {"leak_prompt"}
    assert [code for code in sorted(codes) if f"`{code}`" not in documented] == []
