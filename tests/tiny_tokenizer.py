"""A tokenizer that the tests train themselves, with ChatML tokens and template."""

from __future__ import annotations

from typing import Any

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
