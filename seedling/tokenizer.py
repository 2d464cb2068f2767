"""A byte-level BPE tokenizer in which no word, number or newline depends on its neighbours.

Run as `python -m seedling.tokenizer FOLDER` to train one on the pre-training text and save it.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (END, TURN_START, TURN_END, PAD)
# Reserved for training on reasoning and tool calls; ordinary text, so that decoding keeps them.
RESERVED = ("<think>", "</think>", "<tool_call>", "</tool_call>")

# One Han character, one digit, one newline; only then what is left: words with one space before them
# (Qwen2 lets a quotation mark take that place, which would give `"Anna` a token of its own).
_ALONE = r"\p{Han}|\p{N}|\r?\n"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 6144) -> Tokenizer:
    """Learn the vocabulary; the special tokens come first, so their ids never move."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_ALONE), "isolated"),
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[
            *SPECIAL,
            *(AddedToken(token, special=False, normalized=False) for token in RESERVED),
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that AutoTokenizer.from_pretrained reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": PAD,
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    template = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def main() -> None:
    """Train on the first 40,000 documents: enough to see every word of the tables many times."""
    from seedling.corpus import documents

    save(train_tokenizer(documents(seed=0, count=40_000)), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
