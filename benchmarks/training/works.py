"""The works of the training benchmark: which model, rows and method, and what is asked of tuneloop there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training import made

FULL: dict[str, Any] = {"full": {}}
LORA: dict[str, Any] = {"lora": {"rank": 16, "alpha": 32}}
LENGTHS = (256, 512, 1024, 2048, 4096)
FREEZE: dict[str, Any] = {"freeze": {"layers": 2}}
SEED = 7


@dataclass(frozen=True)
class Work:
    """One row of the table of goals. `batches` of `batch_size` rows are timed, before and after them stands one more:
    the same rows for everybody, whose loss shows that all learn alike. Few batches are mostly a measure of how soon a
    machine gives memory for the first time: with 4, a sample of tuneloop was up to a third lower than with 24."""

    about: str
    model: str
    rows: Callable[[], list[made.Chat]]
    method: dict[str, Any]
    batch_size: int
    batches: int
    learning_rate: float
    goals: dict[str, float]
    """Contestant → how many times as many real tokens a second tuneloop shall do."""
    system_tokens: int = 0
    """Tokens of one system prompt before every row."""
    epochs: int = 1
    """More than one: the first is the warm-up, and all rows are timed in the later ones."""
    tokens: bool = True
    """Rivals get tokens and labels; else chats, which they prepare themselves (tuneloop always does)."""


WORKS = {
    "alpaca-full": Work(
        "Alpaca rows, full tuning, Llama shape of 26 M", "llama-26m", made.alpaca, FULL, 8, 12, 3e-4,
        {"trl": 8, "trl-best": 3},
    ),
    "alpaca-lora": Work(
        "the same, LoRA on all linear layers", "llama-26m", made.alpaca, LORA, 8, 12, 1e-3, {"trl": 8, "trl-best": 3}
    ),
    "system-prompt": Work(
        "Alpaca rows behind one system prompt of 512 tokens, LoRA", "llama-26m", made.alpaca, LORA, 8, 4, 1e-3,
        {"trl-best": 5}, system_tokens=512,
    ),
    "smollm2-sst2": Work(
        "SmolLM2-135M-Instruct (real weights), LoRA, SST-2 prompts", "smollm2-135m-instruct", made.sst2, LORA, 16, 4,
        5e-4, {"trl-best": 5},
    ),
    "freeze": Work(
        "top 2 of 12 layers of the 26 M model, Alpaca rows, epochs 2 and 3", "llama-26m", made.alpaca, FREEZE, 8, 4,
        1e-3, {"tuneloop-uncached": 4, "llama-factory": 10}, epochs=3,
    ),
    "qwen05b-gsm8k": Work(
        "Qwen2.5 shape of 0.5 B, LoRA, GSM8K rows", "qwen2.5-0.5b", made.gsm8k, LORA, 8, 2, 5e-4, {"trl-best": 2.5}
    ),
    "start": Work(
        "command to the end of the first step, embedded model, LoRA", "embedded", partial(made.alpaca, longest=1000),
        LORA, 8, 1, 1e-3, {}, tokens=False,
    ),
    "smallest": Work(
        "the embedded model, to test the benchmark itself", "embedded", partial(made.alpaca, longest=1000), LORA, 4, 2,
        1e-3, {},
    ),
    **{
        f"length-{tokens}": Work(
            f"rows of about {tokens:,} tokens, full tuning, 26 M model", "llama-26m", partial(made.long, tokens), FULL,
            4096 // tokens, 2, 3e-4, {},
        )
        for tokens in LENGTHS
    },
}  # fmt: skip


def lay_out(name: str, steps: int | None, folder: Path, work: Path) -> Path:
    """Writes everything that a contestant reads into `folder`; returns the file that names it all.

    Two orders of the same rows: `mixed`, and `by_length`, whose batches have rows of similar length as a pass over all
    rows sorted by length would make them. `steps` counts all, with the first and the last.
    """
    from transformers import AutoTokenizer

    chosen = WORKS[name]
    base = made.model(chosen.model, work)
    tokenizer = AutoTokenizer.from_pretrained(base)
    chats = chosen.rows()
    if chosen.system_tokens:
        policy = {"role": "system", "content": made.system_prompt(tokenizer, chosen.system_tokens)}
        chats = [[policy, *chat] for chat in chats]
    batches = max(1, steps - 2) if steps else chosen.batches
    first, orders = _orders([made.render(tokenizer, chat) for chat in chats], batches, chosen.batch_size)
    frame = [] if chosen.epochs > 1 else first
    for order, picked in orders.items():
        rows = [*frame, *picked, *frame]
        _write(folder / f"{order}.jsonl", [made.render(tokenizer, chats[row]) for row in rows])
        _write(folder / f"{order}.messages.jsonl", [{"messages": chats[row]} for row in rows])
    spec = {
        "work": name, "model": str(base), "rows": str(folder), "method": chosen.method, "tokens": chosen.tokens,
        "batch_size": chosen.batch_size, "learning_rate": chosen.learning_rate, "epochs": chosen.epochs, "seed": SEED,
        "max_length": 8192, "steps": (batches + (2 if frame else 0)) * chosen.epochs,
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec, indent=1), "utf-8")
    return folder / "spec.json"


def timed(chosen: Work, steps: list[dict[str, float]]) -> list[dict[str, float]]:
    """The steps that count: without warm-up and without the last one, which only shows the loss."""
    return steps[len(steps) // chosen.epochs :] if chosen.epochs > 1 else steps[1:-1]


def _orders(rows: list[dict[str, list[int]]], batches: int, size: int) -> tuple[list[int], dict[str, list[int]]]:
    """(rows of the first and last batch, {order: rows of the timed batches}), drawn by seed."""
    draw = random.Random(SEED)
    first = draw.sample(range(len(rows)), size)
    others = sorted(set(range(len(rows))) - set(first), key=lambda row: len(rows[row]["input_ids"]))
    alike = [others[start : start + size] for start in range(0, len(others) - size + 1, size)]
    picked = [alike[(2 * number + 1) * len(alike) // (2 * batches)] for number in range(batches)]
    draw.shuffle(picked)
    by_length = [row for batch in picked for row in batch]
    return first, {"mixed": draw.sample(by_length, len(by_length)), "by_length": by_length}


def _write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
