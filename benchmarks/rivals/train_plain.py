"""The loop that people write by hand: padded rows, autocast to bf16, the model's own loss.

python train_plain.py SPEC.json FOLDER VARIANT        prints seconds and losses of all steps; VARIANT: default or length
"""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from steps import Stopwatch, rows, spec
from transformers import AutoModelForCausalLM


def main() -> None:
    """Trains and saves."""
    watch = Stopwatch()
    given, folder = spec()
    order = "by_length" if given["variant"] == "length" else "mixed"
    data, size, method = rows(given, order), given["batch_size"], given["method"]
    torch.manual_seed(given["seed"])
    # trained weights stay in float32; frozen ones need not
    weights = torch.bfloat16 if "lora" in method else torch.float32
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=weights)
    if "lora" in method:
        rank, alpha = method["lora"]["rank"], method["lora"]["alpha"]
        model = get_peft_model(
            model, LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    if "freeze" in method:
        model.requires_grad_(False)
        model.model.layers[-method["freeze"]["layers"] :].requires_grad_(True)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=given["learning_rate"], weight_decay=0.0, fused=True)
    for step in range(given["steps"]):
        start = step * size % len(data)
        watch.begin()
        batch = padded(data[start : start + size])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watch.losses.append(loss.item())
        watch.end()
    model.save_pretrained(folder)
    watch.report()


def padded(picked: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Ids, mask and labels as tensors [rows, longest row]."""
    longest = max(len(row["input_ids"]) for row in picked)
    gaps = [longest - len(row["input_ids"]) for row in picked]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * gap for row, gap in zip(picked, gaps, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps]),
        "labels": torch.tensor([row["labels"] + [-100] * gap for row, gap in zip(picked, gaps, strict=True)]),
    }


if __name__ == "__main__":
    main()
