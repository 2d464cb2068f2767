"""The fixed random choice: spread, nested, and independent of order and of what else is there."""

from __future__ import annotations

from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example, Message, Origin


def rows(count: int, source: str = "a.jsonl") -> list[Example]:
    return [
        Example((Message("user", f"{source} {row}"), Message("assistant", "yes")), Origin(source, row))
        for row in range(count)
    ]


def test_a_fixed_choice_in_the_given_order() -> None:
    examples = rows(30)
    some = choose(examples, 5, "p")
    assert len(some) == 5 and some == [row for row in examples if row in some]
    assert choose(examples, 5, "p") == some != choose(examples, 5, "another purpose")
    assert choose(examples, None, "p") == choose(examples, 99, "p") == examples
    assert choose(examples, 0, "p") == []


def test_the_order_does_not_matter_and_a_smaller_choice_is_part_of_a_larger() -> None:
    examples = rows(300)
    some = choose(examples, 100, "p")
    assert choose(examples[::-1], 100, "p") == some[::-1]
    assert {row.id for row in choose(examples, 20, "p")} < {row.id for row in some}


def test_spread_over_sources() -> None:
    examples = [*rows(500, "a.jsonl"), *rows(500, "b.jsonl")]
    chosen = [row.origin.source for row in choose(examples, 200, "p")]
    assert 70 < chosen.count("a.jsonl") < 130


def test_equal_rows_are_told_apart() -> None:
    assert len(choose(rows(1) * 6, 4, "p")) == 4
