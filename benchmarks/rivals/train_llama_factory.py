"""LLaMA-Factory's `train` on rows that are tokens already (or, for `start`, on chats).

python train_llama_factory.py SPEC.json FOLDER VARIANT        prints seconds and losses; VARIANT is one of VARIANTS

`use_cpu` is not among its own defaults: without it the trainer refuses bf16 on a machine without a GPU.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from datasets import Dataset
from steps import Stopwatch, callback_of, rows, spec

# llamafactory imports torchaudio for rows with sound, and no build of it fits this torch; text needs none of it
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from llamafactory.train.tuner import run_exp  # noqa: E402

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "length": {"order": "by_length", "disable_gradient_checkpointing": True},
}
"""Settings that leave the result as it is; its packing pads every row to the cutoff and is slower on such rows."""


def main() -> None:
    """Trains and saves."""
    watch = Stopwatch()
    given, folder = spec()
    variant = dict(VARIANTS[given["variant"]])
    order = variant.pop("order", "mixed")
    run_exp(
        args={
            "model_name_or_path": given["model"], "stage": "sft", "do_train": True, "template": "chatml",
            "cutoff_len": given["max_length"], "output_dir": str(folder / "out"), "use_cpu": True,
            "bf16": True,
            "per_device_train_batch_size": given["batch_size"], "max_steps": given["steps"], "seed": given["seed"],
            "learning_rate": given["learning_rate"], "lr_scheduler_type": "constant", "disable_shuffling": True,
            "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
            **method(given["method"]), **data(given, order, folder), **variant,
        },
        callbacks=[callback_of(watch)],
    )  # fmt: skip
    watch.report()


def method(chosen: dict[str, Any]) -> dict[str, Any]:
    """What is trained, in its words."""
    if "lora" in chosen:
        rank, alpha = chosen["lora"]["rank"], chosen["lora"]["alpha"]
        return {"finetuning_type": "lora", "lora_rank": rank, "lora_alpha": alpha, "lora_target": "all"}
    if "freeze" in chosen:
        return {"finetuning_type": "freeze", "freeze_trainable_layers": chosen["freeze"]["layers"]}
    return {"finetuning_type": "full"}


def data(spec: dict[str, Any], order: str, folder: Path) -> dict[str, Any]:
    """Tokens as a stored data set where the work has them, else chats."""
    if spec["tokens"]:
        tokens = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows(spec, order)]
        Dataset.from_list(tokens).save_to_disk(folder / "tokens")
        return {"dataset": "none", "tokenized_path": str(folder / "tokens")}
    columns = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {"chats": {
        "file_name": str(Path(spec["rows"]) / f"{order}.messages.jsonl"), "formatting": "sharegpt",
        "columns": {"messages": "messages"}, "tags": columns,
    }}  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info), "utf-8")
    return {"dataset": "chats", "dataset_dir": str(folder)}


if __name__ == "__main__":
    main()
