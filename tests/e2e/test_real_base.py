"""The real base through the command line: a deep model in bfloat16, whose export is held to what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from shell import sums, tuneloop, write_rows

from tuneloop.core.errors import ModelError
from tuneloop.models import bases

NAME = "smollm2-135m-instruct"


@pytest.mark.real
def test_a_deep_model_in_bf16_is_tuned_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss differs by hundredths of a nat between two orders of rounding, which once failed the check."""
    try:
        bases.get(NAME)
    except ModelError as error:
        pytest.skip(f"{NAME} is not cached and cannot be fetched: {error}")
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", sums(24))
    recipe = {
        "model": {"base": NAME, "dtype": "bf16"},
        "data": {"sources": [{"path": "rows.jsonl"}], "split": {"train": 1, "val": 0, "test": 0}},
        "tune": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    answer = tuneloop("tune", "recipe.yaml", "--json")
    assert answer.code == 0, answer.err
    assert "exported" in answer.err
    assert list(Path(answer.json["run"]).glob("out/adapter/adapter_model.safetensors"))
