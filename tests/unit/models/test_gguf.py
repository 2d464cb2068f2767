"""A .gguf file becomes a standard folder with the same logits and the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_file import write_gguf

from tuneloop.core import jsonl
from tuneloop.core.conversation import Message
from tuneloop.core.errors import ModelError
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.gguf import tokenizer_folder
from tuneloop.models.load import load_model
from tuneloop.models.merge import logits, prompt_ids
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.render.load import find_renderer, renderer_of

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("half", [False, True])
def test_a_gguf_is_a_base(half: bool, tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    write_gguf(tmp_path / "tiny.gguf", model, tiny_tokenizer, half=half)
    base = find_base(ModelConfig(base=str(tmp_path / "tiny.gguf")))
    assert base.name == "tiny"
    tokenizer = load_tokenizer(base)
    for text in ("The capital of France is Paris.", "<|im_start|>user\n 12  345<|im_end|>\n", "法国的首都是巴黎。"):
        assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"
    if half:
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float() if parameter.ndim > 1 else parameter.data
    batch = prompt_ids(tokenizer)
    found = load_model(base, torch.float32)
    torch.testing.assert_close(logits(found, batch), logits(model, batch), rtol=1e-4, atol=1e-4)
    assert jsonl.read(base.path / "config.json")["dtype"] == ("float16" if half else "float32")
    stamp = (base.path / "config.json").stat().st_mtime_ns
    again = find_base(ModelConfig(base=str(tmp_path / "tiny.gguf")))
    assert again.digest == base.digest
    assert (again.path / "config.json").stat().st_mtime_ns == stamp  # not converted again


def test_digits_are_split_as_the_model_was_trained(tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "digits.gguf", tiny_model("llama"), tiny_tokenizer, splitter="smollm")
    tokenizer = load_tokenizer(find_base(ModelConfig(base=str(tmp_path / "digits.gguf"))))
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in  1984")]
    assert pieces == ["in", "ĠĠ", "1", "9", "8", "4"]


def test_files_that_cannot_be_read_exactly(tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_gguf(path, tiny_model("llama"), tiny_tokenizer, splitter="unheard-of")
    with pytest.raises(ModelError, match="splits text by 'unheard-of'"):
        find_base(ModelConfig(base=str(path)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"broken GGUF|cannot read"):
        find_base(ModelConfig(base=str(path)))
    assert not list((tmp_path / "cache" / "gguf").iterdir())


def test_the_tokenizer_alone_is_that_of_the_whole(tiny_model: Make, tiny_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_model("llama"), tiny_tokenizer, splitter="smollm")
    alone = find_renderer(ModelConfig(base=str(tokenizer_folder(path))))
    whole = renderer_of(find_base(ModelConfig(base=str(path))))
    asked = (Message("user", "in  1984，你好"),)
    assert alone.prompt(asked) == whole.prompt(asked)
    assert alone.stop_ids == whole.stop_ids and alone.chat_template == whole.chat_template
    assert not list(tokenizer_folder(path).glob("*.safetensors"))
