"""Known bases: the table, and an import that does not answer right leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import tuneloop.models
from tuneloop.core.errors import ModelError
from tuneloop.models import bases, gate, hub


def test_the_table_names_licence_source_and_digest() -> None:
    rows = {row["name"]: row for row in bases.list_bases()}
    assert "embedded" in rows
    for name, row in rows.items():
        assert row["licence"]
        assert row["about"]
        if name != "embedded":
            assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"])
            assert row["size"] > 0
            assert row["here"] or row["get"] == f"tuneloop bases get {name}"


def test_an_import_with_a_wrong_answer_is_refused(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "fetch", lambda name, revision=None: model_folder())  # the hub hands out another model
    with pytest.raises(ModelError, match="instead of 'Paris'"):
        bases.get("smollm2-135m-instruct", source="hub")
    assert not list((tmp_path / "cache" / "bases").iterdir())


def test_the_gate_asks_and_checks(model_folder: Callable[..., Path]) -> None:
    text = gate.check(model_folder(), None, None)
    assert text
    with pytest.raises(ModelError, match="import refused"):
        gate.check(model_folder(), "Who?", "never said")


def test_nothing_here_can_run_foreign_code() -> None:
    for path in Path(tuneloop.models.__file__).parent.glob("*.py"):
        assert not re.search(
            r"trust_remote_code|torch\.load\(|pickle\.load|shell=True|extractall", path.read_text("utf-8")
        )
