"""Rows through the steps, shard by shard: none is lost, in whatever pieces and processes the work is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuneloop.core import jsonl
from tuneloop.core.conversation import Drop, Example, Message, Origin
from tuneloop.data import passes
from tuneloop.data.config import DataConfig, SourceConfig
from tuneloop.data.read import open_source
from tuneloop.data.source import Source, recognise
from tuneloop.data.steps import Rejection, Rows, SetStep, Step, Verdict
from tuneloop.data.steps.near_duplicates import NearDuplicates
from tuneloop.data.trays import Trays, left_of

Write = Callable[..., str]


class Doubled(SetStep):
    """Every row with an even number stands twice."""

    def keys(self, examples: Sequence[Example]) -> dict[str, Any]:
        return {"row": np.array([example.origin.row for example in examples])}

    def decide(self, rows: Rows) -> Verdict:
        odd_ones = {i: Rejection("divisible by 5") for i in np.flatnonzero(rows.keys["row"] % 5 == 0).tolist()}
        return Verdict(odd_ones, repeats=dict.fromkeys(np.flatnonzero(rows.keys["row"] % 2 == 0).tolist(), 2))


def steps(*choices: Any) -> list[Step]:
    return DataConfig.model_validate({"sources": [{"path": "x"}], "steps": list(choices)}).steps


def source(write: Write, count: int = 60) -> Source:
    rows = [{"question": f"Question {number % 50}", "answer": "a" * (number % 9)} for number in range(count)]
    return recognise(SourceConfig(path=write("rows.jsonl", rows)), seed=0)


def rows_of(found: passes.Refined) -> tuple[list[int], list[tuple[int, str]]]:
    """(rows left, (row, step) of those that went), in the order in which they are written."""
    trays = Trays(found.trays)
    left = [int(trays.column("row")[number]) for number in trays.left()]
    drops = [one for tray in found.trays for one in tray.all_drops()]
    return left, [(one.row, json.loads(one.line)["step"]) for one in drops]


RECIPE = ("exact_duplicates", {"length": {"of": "answer", "max_characters": 7}}, "exact_duplicates")


def test_every_row_is_left_or_listed(write: Write, tmp_path: Path) -> None:
    left, drops = rows_of(passes.refine([source(write)], steps(*RECIPE), tmp_path / "work"))
    assert sorted([*left, *(row for row, _ in drops)]) == list(range(60))
    assert left == sorted(left) and [row for row, _ in drops] == sorted(row for row, _ in drops)
    assert {name for _, name in drops} == {"answer", "length"}, "an always-on step, and a step of the recipe"
    assert all(row % 9 == 8 for row, name in drops if name == "length")


@pytest.mark.parametrize(
    ("meta", "evidence"), [({}, {"n": 1}), ({"q": 'say ": x'}, {}), ({"n": 2**70}, {"a": [1]}), ({}, {"big": -(2**70)})]
)
def test_a_line_of_a_shard_is_listed_as_it_stands(meta: dict[str, Any], evidence: dict[str, Any]) -> None:
    example = Example((Message("user", 'a "b",'), Message("assistant", "c")), Origin("s", 3), (), meta)
    drop = Drop(example, "step", 'the "reason"', example.origin, evidence)
    for line in (jsonl.dump(example.to_json()) + b"\n", None):
        assert left_of(drop, line) == (3, jsonl.dump(drop.to_json()))


@pytest.mark.parametrize("held", [True, False])
def test_rows_are_listed_alike_from_memory_and_from_files(write: Write, tmp_path: Path, held: bool) -> None:
    found = passes.refine([source(write)], steps(*RECIPE), tmp_path / "work")
    before = [one for tray in found.trays for one in tray.all_drops()]
    for tray in found.trays if not held else ():
        tray.let_go()
    assert [one for tray in found.trays for one in tray.all_drops()] == before
    assert len(before) > 10


@pytest.mark.parametrize("held", [True, False])
def test_files_of_earlier_passes_are_gone(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    monkeypatch.setattr(passes, "HELD", passes.HELD if held else 0)
    found = passes.refine([source(write)], steps(*RECIPE), tmp_path / "work")
    assert not held or not [*(tmp_path / "work").glob("*.jsonl")], "what is held needs no file"
    for tray in found.trays:
        tray.let_go()
    assert set((tmp_path / "work").glob("*.jsonl")) == {tray.shard.path for tray in found.trays}


@pytest.mark.parametrize("executor", ["here", "processes"])
def test_pieces_and_processes_change_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: Any
) -> None:
    whole = source(write)
    expected = rows_of(passes.refine([whole], steps(*RECIPE), tmp_path / "whole"))
    monkeypatch.setattr("tuneloop.data.source.open_source", partial(open_source, rows_a_piece=13))
    parts = source(write)
    assert len(parts.parts) == 5
    assert rows_of(passes.refine([parts], steps(*RECIPE), tmp_path / "parts", executor)) == expected


def test_repeats_and_drops_survive_later_passes(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes.STEPS, "name_of", lambda step: type(step).__name__.lower())
    found = passes.refine([source(write, 40)], [Doubled(), *steps({"length": {}})], tmp_path / "work")
    trays = Trays(found.trays)
    repeats = dict(zip(trays.column("row").tolist(), trays.column("repeat").tolist(), strict=True))
    assert all(times == (2 if row % 2 == 0 else 1) for row, times in repeats.items())
    left, drops = rows_of(found)
    assert all(row % 5 for row in left)
    assert {row for row, name in drops if name == "doubled"} == {row for row in range(0, 40, 5) if row % 9}


def test_the_same_step_may_come_twice(write: Write, tmp_path: Path) -> None:
    found = passes.refine([source(write)], steps("exact_duplicates", "exact_duplicates"), tmp_path / "work")
    assert len(passes.segments_of(steps("exact_duplicates", "exact_duplicates"))) == 1
    assert {name for _, name in rows_of(found)[1]} == {"answer"}


MASKED = ("near_duplicates", "pii", {"near_duplicates": {"threshold": 0.8, "min_words": 2}})


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_keys_of_changed_rows_are_new_and_those_of_others_are_not_computed_again(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(passes, "HELD", held)
    texts = [f"Call 138{number:08}, please, and ask for the {name} of the day" for number, name in
             enumerate(["fish", "soup", "bread"], 1)]  # fmt: skip
    texts += ["A row without any number at all", "Big numbers stay exact"]
    rows = [{"question": text, "answer": f"{text}!", "big": 2**70 + 1} for text in texts]
    one = recognise(SourceConfig(path=write("rows.jsonl", rows)), seed=0)
    asked: list[int] = []
    keys = NearDuplicates.keys
    monkeypatch.setattr(NearDuplicates, "keys", lambda self, rows: asked.append(len(rows)) or keys(self, rows))
    found = passes.refine([one], steps(*MASKED), tmp_path / "work", "here")
    assert asked == [5, 3], "all rows in the first pass, the masked ones in the second"
    shard = found.trays[0].shard
    examples = list(shard.examples())
    assert [example.meta["big"] for example in examples] == [2**70 + 1] * 5
    expected = keys(NearDuplicates(), examples)
    prefix = passes.key_name(NearDuplicates())
    assert all(np.array_equal(shard.columns[f"{prefix}.{key}"], column) for key, column in expected.items())
    assert [f"{number:016x}" for number in shard.columns["id"].tolist()] == [example.id for example in examples]
    assert shard.columns["repaired"].tolist() == [True] * 3 + [False] * 2


def test_steps_that_agree_in_what_their_keys_depend_on_share_them() -> None:
    assert passes.key_name(NearDuplicates(threshold=0.9)) == passes.key_name(NearDuplicates(keep="longest"))
    assert passes.key_name(NearDuplicates()) != passes.key_name(NearDuplicates(of="prompt"))
