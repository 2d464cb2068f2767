"""Small models and tokenizers that the tests make themselves: nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("tuneloop", deadline=None)  # a busy machine is no failure
settings.load_profile("tuneloop")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = (
    "What is the capital of France? The capital of France is Paris.",
    "Is this movie review positive or negative? Review: a warm and witty film. positive",
    "Add 12 and 30: 42. Sort the words: apple, pear, plum. Give the answer as JSON.",
    "法国的首都是哪里？法国的首都是巴黎。",
    "这条评论是正面还是负面？电影很好看。正面。一个苹果三元，买十二个要三十六元。",
)
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "head_dim": 8},
    "mistral": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8},
    "deepseek_v3": {
        "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
        "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "n_shared_experts": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
    },
}  # fmt: skip


def architecture_of(name: str, **changes: Any) -> dict[str, Any]:
    """Config values of a two-layer model of that architecture, hidden size 32."""
    if name == "gpt2":
        return {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, **changes}
    shared = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {"model_type": name, **shared, "max_position_embeddings": 512, **SIZES[name], **changes}


@pytest.fixture(scope="session")
def architecture() -> Callable[..., dict[str, Any]]:
    """`architecture("llama", **changes)`: config values of a tiny model, as a recipe gives them."""
    return architecture_of


def train_tokenizer(texts: tuple[str, ...] = TEXTS, size: int = 400) -> Any:
    """A byte-level BPE tokenizer with ChatML tokens and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small products only: more threads than one make them slower and fight with other work on the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level tokenizer of 400 tokens with ChatML, Chinese and English."""
    return train_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_folder(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tokenizer, saved."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any) -> Callable[..., Any]:
    """`tiny_model("llama", seed=0, **config)`: a two-layer model in fp32 with random weights large enough to matter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(name: str = "llama", seed: int = 0, **changes: Any) -> Any:
        ids = {"bos_token_id": None, "eos_token_id": tiny_tokenizer.eos_token_id, "pad_token_id": 0}
        values = {
            "vocab_size": len(tiny_tokenizer),
            "initializer_range": 0.2,
            **ids,
            **architecture_of(name, **changes),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32).eval()

    return make


@pytest.fixture(scope="session")
def model_folder(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`model_folder("llama", seed=0)`: the tiny model and tokenizer as a standard folder, made once per session."""
    from tuneloop.models.save import save_model

    made: dict[tuple[str, int], Path] = {}

    def make(name: str = "llama", seed: int = 0) -> Path:
        if (name, seed) not in made:
            made[name, seed] = tmp_path_factory.mktemp("base") / f"{name}-{seed}"
            save_model(tiny_model(name, seed), tiny_tokenizer, made[name, seed])
        return made[name, seed]

    return make
