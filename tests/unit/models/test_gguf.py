"""A .gguf file becomes a standard folder with the same logits and the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model
from tuneloop.models.merge import logits, prompt_ids
from tuneloop.models.tokenizer import load_tokenizer

Make = Callable[..., Any]
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))


def write_gguf(path: Path, model: Any, tokenizer: Any, *, splitter: str = "gpt-2", half: bool = False) -> None:
    """A Llama as llama.cpp's converter writes it: rows of queries and keys reordered for its rotary embedding."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    backend = jsonl.parse(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.added_tokens_encoder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        array = tensor.detach().clone()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                rows, columns = array.shape
                array = array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        fixed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        stem = name.removesuffix(".weight")
        target = fixed.get(stem)
        if target is None:
            _, _, layer, inner = stem.split(".", 3)
            target = f"blk.{layer}.{NAMES[inner]}"
        writer.add_tensor(f"{target}.weight", (array.half() if half and array.ndim > 1 else array.float()).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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
