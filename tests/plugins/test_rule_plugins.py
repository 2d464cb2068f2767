"""What every guard rule must do, whoever wrote it."""

from __future__ import annotations

import re
from random import Random
from typing import get_args

import pytest

from tests.unit.guard.test_rules import NOTHING, STRONG, WEAK
from tuneloop.guard.rules import RULES, Draw, Strength

SAMPLES = [*((text, value) for _, text, value in (*STRONG, *WEAK)), *((text, "12345") for text in NOTHING)]


@pytest.mark.parametrize("name", RULES.names())
def test_documented_and_its_spans_lie_in_the_text(name: str) -> None:
    rule = RULES.make(name)
    assert type(rule).__doc__ and rule.STRONGEST in get_args(Strength)
    for text, _ in SAMPLES:
        for span in rule.find(text):
            assert 0 <= span.start < span.end <= len(text) and span.end - span.start >= 2
            assert span.strength == "weak" or rule.STRONGEST == "strong"


@pytest.mark.parametrize("name", RULES.names())
def test_its_clues_stand_in_every_text_that_holds_a_find(name: str) -> None:
    rule = RULES.make(name)
    found = [text for text, _ in SAMPLES if list(rule.find(text))]
    assert found, f"no sample for {name}: add one to tests/unit/guard/test_rules.py"
    for text in found:
        assert rule.DIGITS is None or re.search(f"[0-9](?:{rule.DIGITS})", text), (name, text)
        words = rule.WORDS
        clued = (
            words.search(text) if isinstance(words, re.Pattern) else not words or any(word in text for word in words)
        )
        assert clued, (name, text)


@pytest.mark.parametrize("name", RULES.names())
def test_it_has_a_surrogate_for_its_finds_and_for_what_overlaps_them(name: str) -> None:
    rule = RULES.make(name)
    found = [text[span.start : span.end] for text, _ in SAMPLES for span in rule.find(text)]
    for value in [*found, *(f"2{value}" for value in found), *(f"{value}@x" for value in found)]:
        first, again = (rule.surrogate(value, Draw(Random(3), 40)) for _ in range(2))
        assert first and first == again
