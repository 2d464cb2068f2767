"""Any .gguf file becomes a standard Hugging Face folder in the cache, kept by the digest of the file.

The trap: a GGUF names its text splitter only by a word, and transformers falls back to GPT-2's for words it does not
know, which gives other tokens than the model was trained on. Here an unknown word is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tuneloop.core import digest, jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import cache, gate, save

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GPT2_SPLIT = frozenset({"gpt-2", "phi-2", "olmo", "mpt", "jais", "roberta-bpe"})
DIGITS_THEN_GPT2 = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Each digit stands alone, then GPT-2's splitter (llama.cpp, src/llama-vocab.cpp: `\\p{N}` comes first)."""
SAMPLES = (
    "The capital of France is Paris.",
    "In 1984,  3.14 and\n\n 42 \tapples; it's",
    "你好，世界 2025 年",
    " a  b\n",
)


def import_file(path: Path, *, question: str | None = None, expected: str | None = None) -> Path:
    """The folder converted from a .gguf file; converts on the first call and asks the result a question.

    Quantised weights are dequantised in fp32 and kept in bf16, fp16 and fp32 ones as they are. Raises ModelError for
    files that are no GGUF, architectures or tokenizers that cannot be converted exactly, and models that say nothing.
    """
    target = _target(path, "")
    if not (target / "config.json").is_file():
        with cache.building(target) as folder:
            convert(path, folder)
            gate.check(folder, question, expected)
    return target


def tokenizer_folder(path: Path) -> Path:
    """A folder with the tokenizer of a .gguf file alone, and its chat template; raises ModelError as `import_file`."""
    target = _target(path, "-tokenizer")
    if not (target / "tokenizer.json").is_file():
        with cache.building(target) as folder:
            tokenizer, splitter = _tokenizer(path)
            save.write_tokenizer(tokenizer, folder)
            _check_kept(path, tokenizer, folder, splitter)
    return target


def convert(path: Path, folder: Path) -> None:
    """Writes the standard folder for a .gguf file into an existing folder, and checks that the tokenizer survived."""
    from transformers import AutoModelForCausalLM, GgufConfig

    from tuneloop.models.checks import check_architecture

    tokenizer, splitter = _tokenizer(path)
    with _reading(path):
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True, dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )  # fmt: skip
    check_architecture(model.config.model_type, None, path)
    tokenizer.model_max_length = model.config.max_position_embeddings
    save.write_model(model, tokenizer, folder, dtype=_dtype(path))
    jsonl.write(
        folder / "tuneloop.json",
        {"version": 1, "source": path.name, "digest": cache.file_digest(path), "licence": _licence(path)},
    )
    _check_kept(path, tokenizer, folder, splitter)


def _target(path: Path, what: str) -> Path:
    """Where in the cache that is kept which is made of a file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is no GGUF file (it does not begin with 'GGUF'); was the download cut short?")
    return cache.root() / "gguf" / f"{path.stem}-{digest.short(cache.file_digest(path))}{what}"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    from tuneloop.models.quiet import quiet

    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, NotImplementedError) as error:
        raise ModelError(f"{path}: transformers cannot read this GGUF: {error}") from error


def _tokenizer(path: Path) -> tuple[PreTrainedTokenizerBase, str | None]:
    """The file's tokenizer, splitting as it was trained, and the name of its splitter."""
    from transformers import AutoTokenizer

    splitter = _splitter(path)
    with _reading(path):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    _split_as_trained(tokenizer, splitter)
    return tokenizer, splitter


def _check_kept(path: Path, tokenizer: PreTrainedTokenizerBase, folder: Path, splitter: str | None) -> None:
    """Raises ModelError for a tokenizer that changes when it is saved."""
    from tuneloop.models.tokenizer import tokenizer_from

    again = tokenizer_from(folder)
    for text in SAMPLES:
        ids = tokenizer(text)["input_ids"]
        if again(text)["input_ids"] != ids:
            raise ModelError(
                f"{path}: its tokenizer changes when it is saved and loaded again ({text!r}); import refused"
            )
        if again.decode(ids, skip_special_tokens=True) != text and splitter is not None:
            raise ModelError(f"{path}: its tokenizer does not give {text!r} back; import refused")


def _fields(path: Path) -> Any:
    import gguf

    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise ModelError(f"{path}: broken GGUF file: {error}") from error


def _splitter(path: Path) -> str | None:
    """The name of the splitter of a byte-level tokenizer, None for SentencePiece ones, which need none."""
    fields = _fields(path).fields
    if "tokenizer.ggml.model" not in fields:
        raise ModelError(f"{path}: this GGUF carries no tokenizer; convert the model from its original folder")
    if fields["tokenizer.ggml.model"].contents() != "gpt2":
        return None
    return str(fields["tokenizer.ggml.pre"].contents()) if "tokenizer.ggml.pre" in fields else "an unnamed rule"


def _split_as_trained(tokenizer: PreTrainedTokenizerBase, splitter: str | None) -> None:
    """Puts the splitter in that transformers leaves out. Raises ModelError for one that nobody here knows."""
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if splitter is None or splitter in GPT2_SPLIT or splitter in GGUF_PRE_TOKENIZER_SPLITS:
        return
    if splitter not in DIGITS_THEN_GPT2:
        raise ModelError(
            f"this GGUF splits text by '{splitter}', which neither transformers nor tuneloop knows: it would be read "
            f"with other tokens than it was trained on. Use the model's original safetensors folder as base."
        )
    backend: Any = tokenizer.backend_tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _dtype(path: Path) -> torch.dtype:
    """The dtype to keep: that of the file's matrices where they are not quantised, else bf16."""
    kinds = {tensor.tensor_type.name for tensor in _fields(path).tensors if len(tensor.shape) > 1}
    exact = {frozenset({"F32"}): torch.float32, frozenset({"F16"}): torch.float16}
    return exact.get(frozenset(kinds), torch.bfloat16)


def _licence(path: Path) -> str | None:
    field = _fields(path).fields.get("general.license")
    return None if field is None else str(field.contents())
