from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.errors import RecipeError
from tuneloop.core.recipe import load, parse_yaml
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.slices import MOST, Slices, Where, cut, words_as_read


def example(asked: str, answer: str = "a", row: int = 0, source: str = "s", **meta: Any) -> Example:
    return Example((Message("user", asked), Message("assistant", answer)), Origin(source, row), meta=meta)


def counted(slices: Slices) -> dict[str, dict[str, int]]:
    return {key: {value: len(rows) for value, rows in parts.items()} for key, parts in slices.keys.items()}


def test_columns_and_their_combinations() -> None:
    rows = [example("q", kind="a", lang="zh"), example("q", kind="b", lang="en"), example("q", kind="a"), example("q")]
    found = cut(["kind", "kind+lang"], rows)
    assert found.keys == {"kind": {"a": [0, 2], "b": [1]}, "kind+lang": {"a · zh": [0], "b · en": [1]}}
    assert found.by_example(4)[0] == {"kind": ["a"], "kind+lang": ["a · zh"]} and found.by_example(4)[3] == {}


def test_a_key_that_nobody_has_is_a_note() -> None:
    found = cut(["topik"], [example("q", topic="x")])
    assert found.keys == {} and "topik: no example has it (columns: topic; built in: label, language" in found.notes[0]


def test_two_levels_are_both_counted() -> None:
    tasks = ["reasoning/common-sense", "reasoning/arithmetic", "summary/news", "reasoning/arithmetic"]
    assert counted(cut(["task"], [example("q", task=task) for task in tasks])) == {
        "task": {
            "reasoning": 3, "reasoning/arithmetic": 2, "reasoning/common-sense": 1, "summary": 1, "summary/news": 1
        }
    }  # fmt: skip
    plain = cut(["unit"], [example("q", unit=unit) for unit in ("n/a", "km", "a/b/c")])
    assert set(plain.keys["unit"]) == {"n/a", "km", "a/b/c"}, "a slash alone makes no levels"


def test_language_is_detected_where_no_column_says_it() -> None:
    rows = [
        example("What is the capital of France, and why is it there?"),
        example("法国的首都是哪里？为什么？"),
        example("???", "这是一个中文的回答。"),
        example("12 + 30"),
        example("Nein", language="de"),
    ]
    assert counted(cut(["language"], rows)) == {"language": {"de": 1, "en": 1, "unknown": 1, "zh": 2}}
    assert counted(cut(["language"], rows[:4])) == {"language": {"en": 1, "unknown": 1, "zh": 2}}


def test_length_is_alike_in_both_languages() -> None:
    english, chinese = "Please tell me what the weather will be like tomorrow", "请你告诉我明天的天气会是什么样子"
    assert words_as_read(english) == 10 and 10 <= words_as_read(chinese) <= 12
    rows = [example("word " * length) for length in (1, 2, 3, 10, 11, 12, 40, 50, 60)] + [example("字" * 90)]
    found = cut(["length"], rows).keys["length"]
    assert list(found) == ["short (≤ 10 words)", "medium (11–40 words)", "long (> 40 words)"]
    assert [len(part) for part in found.values()] == [4, 3, 3] and 9 in found["long (> 40 words)"]
    assert [len(part) for part in cut(["length"], [example("a b")] * 5).keys["length"].values()] == [5]


def test_label_and_source_need_no_column() -> None:
    rows = [example("q", "yes" if i % 3 else "no", i, source=f"f{i % 2}.csv") for i in range(12)]
    assert counted(cut(["label", "source"], rows)) == {
        "label": {"no": 4, "yes": 8}, "source": {"f0.csv": 6, "f1.csv": 6}
    }  # fmt: skip
    assert cut(["label"], [example("q", f"a{i}", i) for i in range(12)]).keys == {}, "free answers are no labels"


def test_expressions_and_rows_without_a_value() -> None:
    rows = [example("one two three"), example("one"), example("one", score="x"), example("one", score=3)]
    found = cut([Where(name="long", where="words(prompt) > 2"), Where(name="good", where="meta.score > 2")], rows)
    assert found.keys == {"long": {"yes": [0], "no": [1, 2, 3]}, "good": {"yes": [3]}}
    assert sum("good" in note for note in found.notes) == len(found.notes) >= 1


def test_too_many_values_are_put_together() -> None:
    rows = [example("q", row=i, name=f"n{i}") for i in range(MOST + 10)] + [example("q", name="n7")]
    found = cut(["name"], rows).keys["name"]
    assert len(found) == MOST + 1 and len(found["n7"]) == 2 and len(found["(10 other values)"]) == 10


@given(st.lists(st.one_of(st.none(), st.text(max_size=5), st.integers(), st.booleans()), min_size=1, max_size=60))
def test_any_column_keeps_every_row_once_or_at_both_levels(values: list[Any]) -> None:
    rows = [example("q", row=i, c=value) for i, value in enumerate(values)]
    parts = cut(["c"], rows).keys.get("c", {})
    members = [place for part in parts.values() for place in part]
    assert set(members) == {i for i, value in enumerate(values) if value is not None}
    assert len(members) <= 2 * len(set(members))


def test_the_recipe_takes_names_and_expressions() -> None:
    text = "slices: [language, {name: long questions, where: 'words(prompt) > 50'}]"
    config = load(EvaluateConfig, parse_yaml(text, "r.yaml"))
    assert config.slices == ("language", Where(name="long questions", where="words(prompt) > 50"))
    with pytest.raises(RecipeError, match="never closed"):
        load(EvaluateConfig, parse_yaml("slices: [{name: long, where: 'words(prompt'}]", "r.yaml"))
    with pytest.raises(RecipeError, match="stands twice"):
        load(EvaluateConfig, parse_yaml("slices: [kind, kind]", "r.yaml"))
