"""What cannot be trained on is listed with its reason; nothing left is an error."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.render.template import Renderer
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.rows import Rows, losses_in_words, render_rows, sources_of


def chat(row: int, *turns: tuple[str, str]) -> Example:
    messages = tuple(
        Message(role, text) for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)
    )
    return Example(messages, Origin("made.jsonl", row))


LONG = ("请写一个很长的故事", "很久很久以前。" * 30)


@pytest.fixture
def renderer(tiny_tokenizer: Any) -> Renderer:
    return Renderer(tiny_tokenizer)


def test_drops_are_listed(renderer: Renderer) -> None:
    examples = [
        chat(0, ("Add 12 and 30.", "42")),
        chat(1, LONG),
        Example((Message("user", "no answer"),), Origin("made.jsonl", 2)),
        chat(3, ("法国的首都是哪里？", "巴黎。")),
    ]
    rows = render_rows(renderer, examples, TuneConfig(max_length=64), "render")
    assert [row.example for row in rows.rendered] == [examples[0].id, examples[3].id]
    drops = {drop.origin.row: drop for drop in rows.drops}
    assert drops.keys() == {1, 2} and all(drop.step == "render" for drop in rows.drops)
    assert "max_length 64" in drops[1].reason and drops[1].evidence["tokens"] > 64
    assert rows.tokens == sum(len(row.ids) for row in rows.rendered) and 0 < rows.supervised < rows.tokens
    words = losses_in_words(rows, len(examples))
    assert words.startswith("2 of 4 rows are trained on") and "1 × " in words


def test_none_left_is_an_error(renderer: Renderer) -> None:
    with pytest.raises(DataError, match=r"none of 2 rows can be trained on:\n +2 × .*max_length"):
        render_rows(renderer, [chat(0, LONG), chat(1, LONG)], TuneConfig(max_length=16), "render")
    assert render_rows(renderer, [], TuneConfig(), "render").rendered == []


def test_cuts_are_said_and_only_made_on_request(renderer: Renderer) -> None:
    examples = [chat(0, ("a", "b"), LONG, ("Add 1 and 2.", "3"))]
    config = TuneConfig(max_length=60, overlong="truncate")
    cut = render_rows(renderer, examples, config, "render")
    assert len(cut.rendered[0]) == 60 and "truncated" in losses_in_words(cut, 1)
    three = [chat(0, ("a", "b"), ("c", "d " * 20), ("e", "3"))]
    turns = render_rows(renderer, three, TuneConfig(max_length=70, overlong="drop_turns"), "render")
    assert "lost turns" in losses_in_words(turns, 1)


def test_each_row_knows_its_source(renderer: Renderer) -> None:
    """Also where equal Examples stand in two sources, where one stands twice, and where some are dropped."""
    named = [("a", 0), ("a", 1), ("b", 0), ("b", 2), ("b", 0), ("c", 1)]
    turns = [("Add 12 and 30.", "42"), LONG, ("Sort the words.", "apple")]
    examples = [Example(chat(0, turns[row]).messages, Origin(source, row)) for source, row in named]
    rows = render_rows(renderer, examples, TuneConfig(max_length=64), "render")
    assert len(rows.drops) == 2
    assert sources_of(rows, examples) == ["a", "b", "b", "b"]
    twice = Rows([row for row in rows.rendered for _ in range(2)], rows.drops)  # as where a template rewrites turns
    assert sources_of(twice, examples) == ["a", "a", "b", "b", "b", "b", "b", "b"]
