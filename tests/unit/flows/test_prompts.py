"""The rows of objective.keep, and that a tune run is another one when they or the teacher change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneloop.core.errors import DataError
from tuneloop.flows import lifecycle
from tuneloop.flows.prompts import load_prompts, prompt_files
from tuneloop.flows.recipe import load_recipe
from tuneloop.track import metrics

ROWS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"prompt": "天气?"}, [("user", "天气?")]),
    ({"Question": "q", "answer": "a"}, [("user", "q"), ("assistant", "a")]),
    ({"question": "q", "answer": None}, [("user", "q")]),
    ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
     [("system", "s"), ("user", "q")]),
    ({"conversations": [{"from": "human", "value": "q"}]}, [("user", "q")]),
    ({"instruction": "i", "input": "", "output": "o"}, [("user", "i"), ("assistant", "o")]),
    ({"text": "a document"}, [("text", "a document")]),
]  # fmt: skip


def test_rows_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "keep.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row, _ in ROWS), "utf-8")
    found = load_prompts(str(path))
    assert [[(m.role, m.content) for m in one.messages] for one in found] == [wanted for _, wanted in ROWS]
    assert found[3].origin.row == 3 and prompt_files(str(path)) == [path]
    (tmp_path / "keep.txt").write_text("one text\n\nanother text\n")
    assert [one.messages[0].content for one in load_prompts(str(tmp_path / "keep.txt"))] == ["one text", "another text"]


def test_the_embedded_probes() -> None:
    probes = load_prompts("embedded")
    assert len(probes) > 100 and {message.role for one in probes for message in one.messages} == {"text"}
    assert prompt_files("embedded") == []


def test_a_row_that_is_no_prompt(tmp_path: Path) -> None:
    path = tmp_path / "keep.jsonl"
    path.write_text('{"prompt": "q"}\n{"score": 3}\n')
    with pytest.raises(DataError, match=r"keep\.jsonl, row 1: no prompt to keep to: it has no text, messages"):
        load_prompts(str(path))


def test_through_the_flow(model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths beside the recipe are found; another file of prompts or another teacher is another run."""
    rows = [{"prompt": f"Add {n} and 30.", "response": str(n + 30)} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "keep.jsonl").write_text('{"prompt": "Sort the words."}\n{"prompt": "How are you?"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{base: {model_folder()}, dtype: fp32}}\n"
        "data: {sources: [{path: rows.jsonl}]}\n"
        "tune: {steps: 2, method: {lora: {rank: 4}}, objective: {keep: {prompts: keep.jsonl, rows: 2},\n"
        f"  distill: {{teacher: {model_folder('gpt2')}}}}}}}\n"
    )
    monkeypatch.chdir(tmp_path.parent)

    def tuned(*settings: str) -> Path:
        job = lifecycle.Job(load_recipe(recipe, settings), tmp_path / "runs")
        return lifecycle.tune(job, lifecycle.prepare(job)).path

    first = tuned()
    line = metrics.read(first / "metrics.jsonl")[0]
    assert {"keep_kl", "distill_kl", "objective"} <= line.keys()
    assert tuned() == first
    (tmp_path / "keep.jsonl").write_text('{"prompt": "Sort the words."}\n{"prompt": "Who are you?"}\n')
    second = tuned()
    assert second != first
    assert tuned(f"tune.objective.distill.teacher={model_folder('llama', 3)}") not in (first, second)
