"""Builds the embedded base model: text → tokenizer → weights → probes and their score, all from seeds (`make base`)."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from seedling import demo, probes, tokenizer
from seedling.corpus import documents
from tuneloop.core import digest, jsonl
from tuneloop.flows.pretrain import pretrain
from tuneloop.flows.probing import completed
from tuneloop.track import console, metrics

HERE = Path(__file__).parent
BUILD = HERE / "build"
PACKAGE = HERE.parent / "src" / "tuneloop"
EMBEDDED, DEMO = PACKAGE / "models" / "embedded", PACKAGE / "flows" / "demo_data"
DOCUMENTS = 300_000
LOGGED_EVERY = 20


def main() -> None:
    """Builds everything and installs it in the package."""
    BUILD.mkdir(exist_ok=True)
    console.say("writing tokenizer and documents")
    tokenizer.save(tokenizer.train_tokenizer(documents(seed=0, count=40_000)), BUILD / "tokenizer")
    rows = ({"text": text} for text in documents(seed=1, count=DOCUMENTS))
    jsonl.write_lines(BUILD / "documents.jsonl", rows)
    run = pretrain(HERE / "recipe.yaml", [], BUILD / "runs", again=False)
    _install(run.out / "model")
    demo.write(DEMO)
    probes.write(EMBEDDED / "probes.jsonl")
    score = completed("embedded")
    _record(run.path, score)
    console.say(f"the base completes {score['right']} of {score['n']} probes")


def _install(model: Path) -> None:
    if EMBEDDED.exists():
        shutil.rmtree(EMBEDDED)
    shutil.copytree(model, EMBEDDED)
    _renew_reserved_tokens(EMBEDDED)


def _renew_reserved_tokens(folder: Path) -> None:
    """Fresh embeddings, as long as the median one, for the special tokens that no document contains.

    Training pushed them all to one and the same vector, away from everything that is ever written: the end of a chat
    turn could neither be told from padding nor, with frozen embeddings, ever be learnt. Chat tokens that are added to
    a base get fresh rows in the same way.
    """
    path = folder / "model.safetensors"
    weights = load_file(path)
    embedding = weights["model.embed_tokens.weight"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = tokenizer.get_added_tokens_decoder()
    reserved = [id_ for id_, token in special.items() if token.content != "<|endoftext|>"]
    others = [id_ for id_ in range(len(embedding)) if id_ not in special]
    rows = torch.randn(len(reserved), embedding.shape[1], generator=torch.Generator().manual_seed(0))
    length = embedding[others].float().norm(dim=1).median()
    embedding[reserved] = (rows / rows.norm(dim=1, keepdim=True) * length).to(embedding.dtype)
    save_file(weights, path, metadata={"format": "pt"})


def _record(run: Path, score: dict[str, Any]) -> None:
    """What the build gave: the curve (every 20th step), the probe score by kind, the digests."""
    rows = [row for row in metrics.read(run / "metrics.jsonl") if row["step"] % LOGGED_EVERY == 0]
    with gzip.GzipFile(HERE / "training_log.jsonl.gz", "wb", mtime=0) as file:
        file.write(b"".join(jsonl.dump(row) + b"\n" for row in rows))
    record = {
        "probes": score,
        "last_loss": rows[-1]["loss"],
        "tokens": sum(row["tokens"] for row in metrics.read(run / "metrics.jsonl")),
        "versions": json.loads((run / "run.json").read_text("utf-8"))["versions"],
        "digests": {
            "documents.jsonl": digest.of_file(BUILD / "documents.jsonl"),
            **{path.name: digest.of_file(path) for path in sorted(EMBEDDED.iterdir())},
        },
    }
    jsonl.write(HERE / "build.json", record)


if __name__ == "__main__":
    main()
