"""What every data format and every data step must do, whoever wrote it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from stepping import run

from tuneloop.core import docstrings
from tuneloop.core.conversation import Example, Message, Origin
from tuneloop.core.plugins import Family
from tuneloop.data.formats import FORMATS, Format, Parts, RowError
from tuneloop.data.steps import STEPS, Step

EVERY = [(family, name) for family in (FORMATS, STEPS) for name in family.names()]
ODD_RECORDS: list[dict[str, Any]] = [
    {},
    {"messages": None, "text": None, "instruction": None},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "答"}], "tools": "[]"},
    {"messages": [1, "x"], "conversations": {"from": 1}, "instruction": [], "prompt": {}, "text": 3},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": ["a"]}], "tools": 5},
    {"instruction": "q", "input": 3, "output": None, "history": [["one"]], "weight": "heavy"},
    {"prompt": ["q"], "response": float("nan"), "system": 3, "history": "no json"},
    {"prompt": "q", "response": "a", "images": [1]},
    {"text": "文", "meta": {"a": 1}},
]


NEEDED: dict[str, dict[str, Any]] = {
    "filter": {"keep": "words(answer) > 1"},
    "map": {"set": {"answer": "answer.strip()"}},
    "contamination": {"against": ["exam.jsonl"]},
}
"""The options without which a plug-in cannot be made."""


@pytest.fixture(autouse=True)
def exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for the step that compares with one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exam.jsonl").write_text('{"prompt": "你好，世界", "response": "b"}\n', "utf-8")


def made(family: Family[Any], name: str) -> Any:
    return family.make({name: NEEDED.get(name, {})})


def examples() -> list[Example]:
    texts = ["", "。", "hi", "Hi ", "你好，世界", "word " * 5000, "[/INST]", "\u2028", "\U0001f600"]
    conversations = [(Message("user", text), Message("assistant", text[::-1])) for text in texts]
    conversations += [(Message("text", "prose", train=1.0),), (Message("system", "s"), *conversations[0])]
    return [Example(messages, Origin("made", row)) for row, messages in enumerate(conversations)]


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_documented_constructed_and_dumped(family: Family[Any], name: str) -> None:
    plugin = made(family, name)
    assert type(plugin).__doc__ and not type(plugin).__doc__.startswith("!"), f"{name} has no docstring"
    for option in type(plugin).model_fields:
        assert docstrings.of_fields(type(plugin)).get(option), f"{name}.{option} has no documentation"

    class Holder(BaseModel):
        chosen: Annotated[family.interface, family]  # type: ignore[name-defined]

    dumped = Holder(chosen=plugin).model_dump(mode="json")
    assert dumped["chosen"].keys() == {name}
    assert Holder.model_validate(dumped).chosen == plugin
    assert name in str(Holder.model_json_schema())


@pytest.mark.parametrize("name", FORMATS.names())
@pytest.mark.parametrize("record", ODD_RECORDS)
def test_a_format_gives_parts_or_a_reason(name: str, record: dict[str, Any]) -> None:
    before = repr(record)
    plugin: Format = FORMATS.make(name)
    assert 0.0 <= plugin.likeness(record) <= 1.0
    try:
        parts = plugin.parse(record)
    except RowError as error:
        assert error.reason
    else:
        assert isinstance(parts, Parts) and parts.messages
        again = Example(parts.messages, Origin("made", 0), parts.tools, parts.meta)
        assert Example.from_json(again.to_json()) == again
    assert repr(record) == before, "the raw record must stay as it is for dropped.jsonl"


@pytest.mark.parametrize("name", STEPS.names())
def test_a_step_loses_nothing_and_is_deterministic(name: str) -> None:
    step: Step = made(STEPS, name)
    given = examples()
    kept, rejected = run([step], given)
    rows = [one.origin.row for one in kept] + [one.origin.row for one, _ in rejected]
    assert sorted(rows) == [one.origin.row for one in given]
    assert [one.origin.row for one in kept] == sorted(one.origin.row for one in kept), "order changed"
    assert all(rejection.reason for _, rejection in rejected)
    assert run([step], given) == (kept, rejected)
    assert run([step], kept) == (kept, []), "a second pass must find nothing more"
    assert run([step], []) == ([], [])


@pytest.mark.parametrize("name", STEPS.names())
def test_a_step_goes_to_other_processes(name: str) -> None:
    step: Step = made(STEPS, name)
    again = pickle.loads(pickle.dumps(step))
    assert again == step and run([again], examples()) == run([step], examples())


def test_the_families_load_without_heavy_packages() -> None:
    code = (
        "import sys\nfrom tuneloop.data.config import DataConfig\nDataConfig.model_json_schema()\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'polars', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
