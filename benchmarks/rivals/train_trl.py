"""TRL's SFTTrainer on rows that are tokens already (or, for `start`, on chats).

python train_trl.py SPEC.json FOLDER VARIANT        prints seconds and losses of all steps; VARIANT is one of VARIANTS
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from steps import Stopwatch, callback_of, rows, spec
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "length": {"order": "by_length", "gradient_checkpointing": False},
    "length-fp32": {"order": "by_length", "gradient_checkpointing": False, "bf16": False},
    "length-bf16-weights": {"order": "by_length", "gradient_checkpointing": False, "weights": "bfloat16"},
    "one-by-one": {"gradient_checkpointing": False, "accumulate": True},
}
"""Settings that leave the result as it is. bf16 weights do so only where they are frozen: for LoRA."""


def settings(spec: dict[str, Any], folder: Path, variant: dict[str, Any]) -> SFTConfig:
    """What all variants share is what the works prescribe; all else is TRL's default."""
    size = spec["batch_size"]
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": size}
    whole = {"per_device_train_batch_size": size}
    return SFTConfig(
        output_dir=str(folder), use_cpu=True, max_steps=spec["steps"], learning_rate=spec["learning_rate"],
        lr_scheduler_type="constant", seed=spec["seed"], max_length=spec["max_length"], save_strategy="no",
        train_sampling_strategy="sequential", logging_steps=1, disable_tqdm=True, report_to="none",
        **(split if variant.pop("accumulate", False) else whole), **variant,
    )  # fmt: skip


def main() -> None:
    """Trains and saves."""
    watch = Stopwatch()
    given, folder = spec()
    variant = dict(VARIANTS[given["variant"]])
    order, weights = variant.pop("order", "mixed"), variant.pop("weights", "float32")
    method = given["method"]
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=getattr(torch, weights))
    lora = None
    if "lora" in method:
        rank, alpha = method["lora"]["rank"], method["lora"]["alpha"]
        lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    if "freeze" in method:
        model.requires_grad_(False)
        model.model.layers[-method["freeze"]["layers"] :].requires_grad_(True)
    trainer = SFTTrainer(
        model=model,
        args=settings(given, folder, variant),
        train_dataset=data(given, order),
        processing_class=AutoTokenizer.from_pretrained(given["model"]),
        peft_config=lora,
        callbacks=[callback_of(watch)],
    )
    trainer.train()
    trainer.save_model()
    watch.report()


def data(spec: dict[str, Any], order: str) -> Dataset:
    """Tokens where the work has them, else chats."""
    if spec["tokens"]:
        return Dataset.from_list(rows(spec, order))
    with (Path(spec["rows"]) / f"{order}.messages.jsonl").open(encoding="utf-8") as file:
        chats = [json.loads(line)["messages"] for line in file]
    return Dataset.from_list([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats])


if __name__ == "__main__":
    main()
