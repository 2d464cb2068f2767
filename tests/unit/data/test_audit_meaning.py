"""Clusters by meaning: found where they were planted, and a split that asks for something else is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.unit.data.audit_facts import card_of, codes, pairs
from tuneloop.core.errors import ModelError
from tuneloop.data.audit import to_html, to_markdown
from tuneloop.data.audit.clusters import MOST, ROWS_EACH, clusters, vendi
from tuneloop.data.config import DataConfig
from tuneloop.data.facts import Meaning
from tuneloop.data.prepare import prepare_in, source_files


def planted(sizes: Sequence[int], dimensions: int = 64, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """(vectors around as many directions at right angles, the direction of each), shuffled."""
    draw = np.random.default_rng(3)
    of = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = np.eye(dimensions, dtype=np.float32)[of] + draw.normal(0, noise, (len(of), dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), of


def test_planted_clusters_are_found() -> None:
    vectors, of = planted([20] * 10)
    found = clusters(vectors)
    assert found.sizes.tolist() == [20] * 10
    assert all(len(set(of[found.of == cluster].tolist())) == 1 for cluster in range(10))
    assert all(of[row] == of[found.of == cluster][0] for cluster, row in enumerate(found.centre))
    assert (found.alike > 0.95).all()
    again = clusters(vectors)
    assert (again.of == found.of).all() and (again.centre == found.centre).all()


def test_the_largest_first_and_as_many_as_rows_allow() -> None:
    vectors, _ = planted([300, 60, 40])
    sizes = clusters(vectors).sizes
    assert len(sizes) == 400 // ROWS_EACH and (np.diff(sizes) <= 0).all() and sizes.sum() == 400
    many = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    assert len(clusters(many / np.linalg.norm(many, axis=1, keepdims=True)).centre) == MOST
    equal = clusters(np.tile(np.eye(4, dtype=np.float32)[0], (100, 1)))
    assert equal.sizes.tolist() == [100] and equal.alike.tolist() == [1.0]


def test_vendi_counts_what_has_nothing_in_common() -> None:
    assert vendi(np.eye(12, dtype=np.float32)) == pytest.approx(12)
    assert vendi(np.tile(np.eye(4, dtype=np.float32)[0], (9, 1))) == pytest.approx(1)
    assert vendi(planted([50] * 7, noise=0)[0]) == pytest.approx(7)


def meaning(kinds: dict[str, int]) -> Meaning:
    """An encoder that knows only the first word of a text."""
    return Meaning("words", lambda texts: np.eye(len(kinds), dtype=np.float32)[[kinds[t.split()[0]] for t in texts]])


def test_a_split_that_asks_for_something_else() -> None:
    kinds = {name: number for number, name in enumerate(("sort", "add", "sing"))}
    rows = pairs([(f"{'sing' if n >= 95 else ('sort', 'add')[n % 2]} {n}", "a") for n in range(100)])
    splits = ["train"] * 80 + ["test"] * 20
    card = card_of(rows, splits=splits, meaning=meaning(kinds))
    section = card["meaning"]
    assert section["encoder"] == "words" and section["rows"] == 100 and section["vendi"] > 2
    assert [one["rows"] for one in section["clusters"]] == [48, 47, 5]
    assert section["splits"]["test"] == {"rows": 20, "clusters": 3, "not_trained": 5}
    assert section["splits"]["train"]["not_trained"] == 0
    assert codes(card)["meaning_not_trained"] == "WARN"
    assert "25 %" in to_markdown(card) and "sing 95" in to_html(card, "t")


def test_without_an_encoder_it_is_not_checked() -> None:
    rows = pairs([(f"sort {n}", "a") for n in range(60)])
    assert "no sentence encoder" in card_of(rows)["not_checked"]["meaning"]
    few = card_of(rows[:9], meaning=meaning({"sort": 0}))
    assert "meaning" not in few and "meaning" in few["not_checked"]


def test_the_recipe_names_the_folder(write: Any, encoder_folder: Any, tmp_path: Path) -> None:
    rows = [{"question": f"第{n}个问题 what is {n}?", "answer": f"{n}"} for n in range(60)]
    folder = encoder_folder()
    config = {"sources": [{"path": write("a.jsonl", rows)}], "audit": {"encoder": str(folder)}}
    card = prepare_in(tmp_path / "out", DataConfig.model_validate(config), seed=0).card
    assert card["meaning"]["rows"] == 60 and card["meaning"]["encoder"] == folder.name
    files = source_files(DataConfig.model_validate(config))
    assert folder / "model.safetensors" in files, "another encoder is another run"


def test_a_folder_that_is_none_is_said_before_the_work(write: Any, tmp_path: Path, model_folder: Any) -> None:
    source = {"path": write("a.jsonl", [{"question": "q", "answer": "a"}])}
    config = DataConfig.model_validate({"sources": [source], "audit": {"encoder": str(model_folder())}})
    with pytest.raises(ModelError, match="no sentence encoder"):
        prepare_in(tmp_path / "out", config, seed=0)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValidationError, match="Extra inputs"):
        DataConfig.model_validate({"sources": [source], "audit": {"encoders": "x"}})
