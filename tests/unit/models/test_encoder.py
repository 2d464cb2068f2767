"""Sentence encoders: vectors as the pooling says, in any batch, and clear words for folders that are none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tuneloop.core.errors import ModelError
from tuneloop.models import encoder as room
from tuneloop.models.encoder import find_encoder

Folder = Callable[..., Path]
TEXTS = ["What is the capital of France?", "法国的首都是哪里？", "Add 12 and 30.", "", "word " * 200, "Sort the words."]


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.models.precision.pick_dtype", lambda *_: (torch.float32, "for the test"))


def plainly(folder: Path, text: str, pooling: str) -> np.ndarray:
    """One text through transformers, alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text, truncation=True, max_length=64)["input_ids"] or [tokenizer.pad_token_id]
    with torch.inference_mode():
        hidden_TD = model.eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    vector = {"mean": hidden_TD.mean(0), "cls": hidden_TD[0], "lasttoken": hidden_TD[-1]}[pooling]
    return (vector / vector.norm()).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("batch", [8_192, 70])
def test_vectors_are_those_of_the_model(
    encoder_folder: Folder, pooling: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BATCH_TOKENS", batch)
    folder = encoder_folder(pooling)
    done: list[int] = []
    found = find_encoder(folder).encode(TEXTS, done.append)
    assert found.dtype == np.float32 and sum(done) == len(TEXTS) and (len(done) > 1) == (batch < 100)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    for text, vector in zip(TEXTS, found, strict=True):
        assert vector == pytest.approx(plainly(folder, text, pooling), abs=1e-5), text
    assert not np.allclose(found[0], found[2], atol=1e-3)


def test_no_texts(encoder_folder: Folder) -> None:
    assert find_encoder(encoder_folder()).encode([]).shape == (0, 32)


def changed(folder: Path, target: Path, change: Callable[[Path], Any]) -> Path:
    shutil.copytree(folder, target)
    change(target)
    return target


def put(name: str, value: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(json.dumps(value))


def test_the_folders_own_settings(encoder_folder: Folder, tmp_path: Path) -> None:
    folder = encoder_folder()
    plain = find_encoder(folder)
    cut = find_encoder(changed(folder, tmp_path / "a", put("sentence_bert_config.json", {"max_seq_length": 4})))
    lower = {"max_seq_length": 64, "do_lower_case": True}
    small = find_encoder(changed(folder, tmp_path / "b", put("sentence_bert_config.json", lower)))
    prompt = {"prompts": {"query": "Add: "}, "default_prompt_name": "query"}
    asked = find_encoder(changed(folder, tmp_path / "c", put("config_sentence_transformers.json", prompt)))
    assert cut.encode(["Sort the words: apple"]) == pytest.approx(cut.encode(["Sort the words: pear, plum"]), abs=1e-6)
    assert small.encode(["SORT"]) == pytest.approx(plain.encode(["sort"]), abs=1e-6)
    assert asked.encode(["12"]) == pytest.approx(plain.encode(["Add: 12"]), abs=1e-6)


MODULES = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]


@pytest.mark.parametrize(("change", "words"), [
    (lambda folder: (folder / "modules.json").unlink(), "has no modules.json, so it is no sentence encoder"),
    (lambda folder: (folder / "model.safetensors").unlink(), r"has no \*\.safetensors"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "model.onnx"), "ONNX files are not read"),
    (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
    (lambda folder: (folder / "code.py").write_text("1"), "never runs"),
    (put("modules.json", [*MODULES, {"path": "2_Dense", "type": "x.Dense"}]), "Dense are not understood"),
    (put("modules.json", {"a": 1}), "not a list of modules"),
    (put("1_Pooling/config.json", {"pooling_mode_max_tokens": True}), "max_tokens is not known; known: mean"),
    (put("1_Pooling/config.json", {}), "names no pooling"),
])  # fmt: skip
def test_folders_that_are_none(encoder_folder: Folder, tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_encoder(changed(encoder_folder(), tmp_path / "broken", change))


def test_weights_that_do_not_fit(encoder_folder: Folder, tmp_path: Path) -> None:
    def deeper(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))

    encoder = find_encoder(changed(encoder_folder(), tmp_path / "deeper", deeper))
    with pytest.raises(ModelError, match="weights are missing or misshapen"):
        encoder.encode(["text"])
    broken = changed(
        encoder_folder(), tmp_path / "cut", lambda folder: (folder / "model.safetensors").write_bytes(b"x")
    )
    with pytest.raises(ModelError, match="cannot be loaded"):
        find_encoder(broken).encode(["text"])
    with pytest.raises(ModelError, match="no such folder"):
        find_encoder(tmp_path / "nowhere")


@pytest.mark.real
def test_a_real_encoder_knows_what_is_meant() -> None:
    """TUNELOOP_TEST_ENCODER: the folder of an English encoder, such as all-MiniLM-L6-v2."""
    folder = os.environ.get("TUNELOOP_TEST_ENCODER")
    if not folder:
        pytest.skip("TUNELOOP_TEST_ENCODER names no folder")
    texts = ["How do I cook rice?", "What is the best way to prepare rice?", "Sort these numbers.", "Order the digits."]
    found = find_encoder(Path(folder)).encode(texts)
    alike = found @ found.T
    assert min(alike[0, 1], alike[2, 3]) > 0.4 > alike[:2, 2:].max()
