"""The real base: fetched once into the cache, answers, keeps its tokens, merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tuneloop.core.errors import ModelError
from tuneloop.models import adapters, bases, gate
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import Base, find_base
from tuneloop.models.load import load_model
from tuneloop.models.merge import merge
from tuneloop.models.tokenizer import load_tokenizer

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def base() -> Base:
    try:
        bases.get(NAME)
    except ModelError as error:
        pytest.skip(f"{NAME} is not cached and cannot be fetched: {error}")
    return find_base(ModelConfig(base=NAME))


@pytest.mark.real
def test_it_answers(base: Base) -> None:
    assert "Paris" in gate.answer(base.path)
    assert base.licence == "apache-2.0"
    (row,) = [row for row in bases.list_bases() if row["name"] == NAME]
    assert row["here"] == str(base.path)
    assert row["get"] is None


@pytest.mark.real
def test_its_tokens_are_the_ones_it_was_trained_on(base: Base) -> None:
    tokenizer: Any = load_tokenizer(base)
    assert len(tokenizer) == 49152
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert [tokenizer.convert_tokens_to_ids(token) for token in specials] == [0, 1, 2]
    assert [tokenizer(token)["input_ids"] for token in specials] == [[0], [1], [2]]
    assert tokenizer.eos_token_id == 2
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    for text in ("Hello world, 1234 dogs  and\n\n 3.14!  It's", "x = [1, 2]\n\tif a_b != 'c':", "你好，世界"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("in 1984") == ["in", "Ġ", "1", "9", "8", "4"]
    # the digit stands alone before spaces are grouped, so both line breaks and the space are one run
    assert tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n 3")[1][0] == "ĊĊĠ"


@pytest.mark.real
def test_it_merges(base: Base, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = get_peft_model(
        load_model(base, torch.float32), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    adapters.save_adapter(model, load_tokenizer(base), base, tmp_path / "adapter", stop_ids=[2])
    del model
    check = merge(base, tmp_path / "adapter", tmp_path / "merged")
    assert check.passed
    assert check.dtype == "bfloat16"
    assert check.reload_error == 0.0
    assert check.kl < 0.1 * check.effect_kl
