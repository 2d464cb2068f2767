"""Small models and tokenizers that the tests make themselves: nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from architectures import architecture_of, tiny
from hypothesis import settings
from tiny_tokenizer import train_tokenizer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nothing of ours is compiled. bitsandbytes, which peft imports with its first adapter, asks for it as it is imported:
# that loads torch's compiler, 1.2 s in each process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
settings.register_profile("same", deadline=None, derandomize=True)  # a busy machine is no failure
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def architecture() -> Callable[..., dict[str, Any]]:
    """`architecture("llama", **changes)`: config values of a tiny model, as a recipe gives them."""
    return architecture_of


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

    def make(name: str = "llama", seed: int = 0, **changes: Any) -> Any:
        return tiny(tiny_tokenizer, name, seed, **changes)

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


@pytest.fixture(scope="session")
def encoder_folder(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`encoder_folder("mean")`: a tiny random BERT as sentence-transformers would write it, made once per session."""
    import json

    import torch
    from transformers import BertConfig, BertModel

    made: dict[str, Path] = {}
    names = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}

    def make(pooling: str = "mean") -> Path:
        if pooling not in made:
            made[pooling] = folder = tmp_path_factory.mktemp("encoder") / pooling
            shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                config = BertConfig(
                    vocab_size=len(tiny_tokenizer), max_position_embeddings=512, initializer_range=0.2, **shape
                )
                BertModel(config).save_pretrained(folder)
            tiny_tokenizer.save_pretrained(folder)
            kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
            modules = [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, (kind, path) in enumerate(kinds.items())
            ]
            (folder / "1_Pooling").mkdir()
            files = {
                "modules.json": modules,
                "sentence_bert_config.json": {"max_seq_length": 64},
                "1_Pooling/config.json": {f"pooling_mode_{names[pooling]}": True, "pooling_mode_max_tokens": False},
            }
            for name, value in files.items():
                (folder / name).write_text(json.dumps(value))
        return made[pooling]

    return make
