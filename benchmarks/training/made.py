"""What the training benchmark makes itself, once a work folder: models from a shape, tokenizers, rows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
"""Where the project's public trial data lie, beside the clone; without them rows are made of the demo's."""
DEMO = Path(__file__).resolve().parents[2] / "src" / "tuneloop" / "flows" / "demo_data" / "tickets.jsonl"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SHAPES: dict[str, dict[str, Any]] = {
    "llama-26m": {
        "model_type": "llama", "vocab_size": 16384, "hidden_size": 384, "intermediate_size": 1088,
        "num_hidden_layers": 12, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    },
}  # fmt: skip
Chat = list[dict[str, str]]


def model(name: str, work: Path) -> Path:
    """The folder of a model: one of SHAPES with random weights, `embedded`, or a name of `tuneloop bases`."""
    from tuneloop.models import bases

    if name not in SHAPES:
        return bases.get(name)
    return _once(work / "models" / name, lambda folder: _make_model(name, folder))


def _make_model(name: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(SHAPES[name])
    kind = shape.pop("model_type")
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    random = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **ends))
    random.to(torch.bfloat16).save_pretrained(folder)  # as published weights are, so that all begin from the same


def _tokenizer() -> Any:
    """Byte-level BPE with 16,384 entries at most, trained on the very texts, in the ChatML form of Qwen and SmolLM2."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=16384,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=8192
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _texts() -> Iterable[str]:
    for source in (alpaca, gsm8k, sst2):
        for chat in source():
            yield from (message["content"] for message in chat)


def alpaca(longest: int = 10_000) -> list[Chat]:
    """Instruction rows in English, of up to so many characters."""
    path = SHARED / "data" / "alpaca" / "alpaca_en.json"
    if not path.is_file():
        return _demo()
    rows = json.loads(path.read_text("utf-8"))
    chats = [_chat("\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]) for row in rows]
    return [chat for chat in chats if sum(len(message["content"]) for message in chat) <= longest]


def gsm8k() -> list[Chat]:
    """Sums in words, with their steps."""
    path = SHARED / "data" / "gsm8k" / "train.jsonl"
    if not path.is_file():
        return _demo()
    return [_chat(row["question"], row["answer"]) for row in map(json.loads, path.open(encoding="utf-8"))]


def sst2() -> list[Chat]:
    """Film reviews behind the question of examples/sst2-smollm2.yaml, answered by one word."""
    path = SHARED / "data" / "sst2" / "train.tsv"
    if not path.is_file():
        return _demo()
    with path.open(encoding="utf-8") as file:
        rows = list(islice(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 4000))
    asked = "Is this movie review positive or negative? Review: "
    return [_chat(asked + row["sentence"].strip(), ("negative", "positive")[int(row["label"])]) for row in rows]


def long(tokens: int) -> list[Chat]:
    """Rows of about so many tokens, a quarter of them the question: answers of instruction rows, joined."""
    text = " ".join(chat[1]["content"] for chat in alpaca() * 20)
    size = int(4.2 * tokens)  # characters; with fewer tokens than planned no limit of a model is hit
    rows = [text[start : start + size] for start in range(0, 8 * 16 * size, size)]
    halves = [(row[: size // 4].strip(), row[size // 4 :].strip()) for row in rows if len(row) == size]
    return [_chat(asked, answered) for asked, answered in halves]  # white space at a border is tokenised in two ways


def chats(count: int, first: int) -> Iterator[Chat]:
    """So many different chats: instruction rows again and again, numbered from `first`, so that nobody has them yet."""
    rows = alpaca()
    for number in range(first, first + count):
        asked, answered = rows[number % len(rows)]
        yield _chat(f"Case {number}. {asked['content']}", answered["content"])


def system_prompt(tokenizer: Any, tokens: int) -> str:
    """A text of about so many tokens: the policy that each of many requests is answered by."""
    words = " ".join(chat[1]["content"] for chat in alpaca()[:40])
    return tokenizer.decode(tokenizer(words, add_special_tokens=False)["input_ids"][:tokens])


def render(tokenizer: Any, chat: Chat) -> dict[str, list[int]]:
    """Token ids and labels (-100: not learnt) of a chat whose last message is learnt, up to the token that ends it.

    What the template puts after that token nobody learns and nothing comes after: it is left out.
    """
    before = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    first, last = len(before), len(whole.rstrip("\n"))
    places = [(token, start) for token, (start, _) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]
    kept = [(token, start >= first) for token, start in places if start < last]
    return {"input_ids": [token for token, _ in kept], "labels": [token if learnt else -100 for token, learnt in kept]}


def _demo() -> list[Chat]:
    lines = [json.loads(line) for line in DEMO.open(encoding="utf-8")]
    return [row["messages"] for row in lines if len(row["messages"]) == 2]


def _chat(asked: str, answered: str) -> Chat:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    if not (folder / "config.json").is_file():
        half = folder.with_name(folder.name + ".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        make(half)
        half.rename(folder)
    return folder
