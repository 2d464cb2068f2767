"""What cannot be trained on is listed with its reason; nothing left is an error."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core import jsonl
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import DataError
from tuneloop.core.example_file import ExampleFile
from tuneloop.render.template import Renderer
from tuneloop.tune import rows as rows_module
from tuneloop.tune.config import TuneConfig
from tuneloop.tune.objective import ObjectiveConfig
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
    assert not render_rows(renderer, [], TuneConfig(), "render").rendered


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


FILE_ROWS = [
    chat(0, ("Add 12 and 30.", "42")),
    chat(1, LONG),
    chat(2, ("a", "b"), ("法国的首都是哪里？", "巴黎。")),
    Example((Message("user", "1+1?"), Message("assistant", "2", reasoning="one and one")), Origin("made.jsonl", 3)),
]


def filed(path: Path, rows: list[Example] = FILE_ROWS) -> ExampleFile:
    jsonl.write_lines(path, [row.to_json() for row in rows])
    return ExampleFile(path)


def told(rows: Rows) -> Any:
    """All that there is to rows but how they came to be."""
    flat = [(row.ids.tolist(), row.weights.tolist(), row.example, row.cut_tokens) for row in rows.rendered]
    other = [(row.ids.tolist(), row.weights.tolist(), row.example) for row in rows.rejected]
    return flat, other, [drop.to_json() for drop in rows.drops], rows.paired, rows.tokens, rows.supervised


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, for files of any size."""
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rows_module, "KEPT", 1)
    return tmp_path


def test_kept_rows_are_the_rows(tiny_tokenizer: Any, keeping: Path) -> None:
    config = TuneConfig(max_length=64)
    first, again = Renderer(tiny_tokenizer), Renderer(tiny_tokenizer)
    made = render_rows(first, filed(keeping / "a.jsonl"), config, "render")
    kept = render_rows(again, filed(keeping / "b.jsonl"), config, "render")  # by content, not by name
    assert made.made.startswith("rendered") and kept.made == "taken from the cache"
    assert told(kept) == told(made) == told(render_rows(first, FILE_ROWS, config, "render")) and len(kept.drops) == 1
    assert again.decisions == first.decisions and any("reasoning" in line for line in first.decisions)
    assert "taken from the cache" in losses_in_words(kept, 4)


@pytest.mark.parametrize("change", ["row", "max_length", "overlong", "template", "variables", "token"])
def test_what_rows_follow_from_makes_others(tiny_tokenizer: Any, keeping: Path, change: str) -> None:
    config = TuneConfig(max_length=64)
    render_rows(Renderer(tiny_tokenizer), filed(keeping / "a.jsonl"), config, "render")
    tokenizer = copy.deepcopy(tiny_tokenizer)
    if change == "template":
        tokenizer.chat_template += "{{ '' }}"
    if change == "token":
        tokenizer.add_tokens(["巴黎"])
    changes = {"max_length": {"max_length": 65}, "overlong": {"overlong": "truncate"}}.get(change, {})
    renderer = Renderer(tokenizer, variables={"enable_thinking": False} if change == "variables" else None)
    examples = filed(keeping / "a.jsonl", FILE_ROWS[:3] if change == "row" else FILE_ROWS)
    config = config.model_copy(update=changes)
    rows = render_rows(renderer, examples, config, "render")
    assert rows.made.startswith("rendered")
    assert told(rows) == told(render_rows(renderer, list(examples), config, "render"))


def test_pairs_are_kept_too(tiny_tokenizer: Any, keeping: Path) -> None:
    pairs = [replace(FILE_ROWS[0], rejected=(Message("assistant", answer),)) for answer in ("41", LONG[1])]
    config = TuneConfig(max_length=64, objective=ObjectiveConfig(orpo=0.1))
    made, kept = (
        render_rows(Renderer(tiny_tokenizer), filed(keeping / "a.jsonl", pairs), config, "render") for _ in range(2)
    )
    assert kept.made == "taken from the cache" and told(kept) == told(made)
    assert len(made.rendered) == len(made.rejected) == len(made.drops) == 1 and made.paired == 2


@pytest.mark.parametrize("harm", ["rendered.ids.npy", "about.json"])
def test_damaged_rows_are_rendered_again(tiny_tokenizer: Any, keeping: Path, harm: str) -> None:
    def rows() -> Rows:
        return render_rows(Renderer(tiny_tokenizer), filed(keeping / "a.jsonl"), TuneConfig(max_length=64), "render")

    made = rows()
    (file,) = (keeping / "cache" / "rows").glob(f"*/{harm}")
    file.write_bytes(file.read_bytes()[:-3])
    again = rows()
    assert "rendered" in again.made and "damaged" in again.made and told(again) == told(made)
    assert rows().made == "taken from the cache"


def test_a_full_disk_stops_nothing(tiny_tokenizer: Any, keeping: Path) -> None:
    (keeping / "cache").write_text("a file where the folder should be")
    rows = render_rows(Renderer(tiny_tokenizer), filed(keeping / "a.jsonl"), TuneConfig(max_length=64), "render")
    assert len(rows.rendered) == 3 and "not kept for the next run" in rows.made
