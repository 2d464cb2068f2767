"""Supervised fine-tuning in one file: what `tuneloop tune` does, without anything of tuneloop.

    python examples/plain_loop.py --model FOLDER_OR_HUB_ID --data chats.jsonl --out tuned

Each line of the data is a conversation, {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}]}.
The model reads all of it and learns to write the assistant's turns. Read `main` first; the rest follows from the top.
tuneloop itself packs rows instead of padding them, never builds the full logits, computes in bf16 with fp32 master
weights, resumes after a kill and checks its data. The losses are the same (tests/invariants/test_plain_loop.py).
"""

import argparse
import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


# -- data: a conversation becomes token ids and a 0/1 weight for each -------------------------------------------------
def read_conversations(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["messages"] for line in file if line.strip()]


def render(tokenizer, messages, max_length):
    """Token ids of the whole chat, and weight 1 on what the model itself writes: answers and the token that ends them.

    The answer's place is found in the text and carried over to tokens by their offsets. Searching for token patterns
    such as "<|im_start|>assistant" is the usual mistake: a tokenizer may merge characters across the border.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            # training prefix = inference prompt: the answer starts where generation would start
            before = tokenizer.apply_chat_template(messages[:turn], tokenize=False, add_generation_prompt=True)
            after = tokenizer.apply_chat_template(messages[: turn + 1], tokenize=False)
            assert text.startswith(before) and text.startswith(after), "this template rewrites earlier turns"
            # the end token (<|im_end|>) is learnt, or the model never stops; the line break after it is the template's
            spans.append((len(before), len(after.rstrip("\n"))))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    weights = [float(any(a <= start < b for a, b in spans)) for start, _ in encoded["offset_mapping"]]
    if len(weights) > max_length or not any(weights):
        return None  # a cut answer would teach to stop in the middle
    return {"ids": encoded["input_ids"], "weights": weights}


def collate(rows, pad_id):
    """Rows → padded tensors [R, L]: R rows, L tokens of the longest one."""
    longest = max(len(row["ids"]) for row in rows)
    ids_RL = torch.full((len(rows), longest), pad_id)
    mask_RL = torch.zeros(len(rows), longest, dtype=torch.long)
    weights_RL = torch.zeros(len(rows), longest)
    for r, row in enumerate(rows):
        length = len(row["ids"])
        ids_RL[r, :length] = torch.tensor(row["ids"])
        mask_RL[r, :length] = 1  # by length and not by `ids != pad_id`: the pad token often is the end token
        weights_RL[r, :length] = torch.tensor(row["weights"])
    return ids_RL, mask_RL, weights_RL


# -- model, loss, schedule --------------------------------------------------------------------------------------------
def load(args):
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    torch.manual_seed(args.seed)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    if args.method == "lora":  # W + (alpha / rank) · B·A with W frozen; B starts at zero, so step 0 is the base model
        lora = LoraConfig(
            task_type="CAUSAL_LM", r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, target_modules="all-linear"
        )
        model = get_peft_model(model, lora)
    return tokenizer, model


def loss_sum(model, ids_RL, mask_RL, weights_RL):
    """Sum over supervised tokens of -log p(token | all tokens before it), in nats."""
    logits_RLV = model(input_ids=ids_RL, attention_mask=mask_RL).logits
    # position t predicts token t + 1
    nll_N = F.cross_entropy(logits_RLV[:, :-1].flatten(0, 1), ids_RL[:, 1:].flatten(), reduction="none")
    return (nll_N * weights_RL[:, 1:].flatten()).sum()


def cosine_with_warmup(step, total_steps, warmup):
    """Factor on the peak learning rate: a line up over the warm-up, then half a cosine wave down to 0."""
    warm = round(warmup * total_steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, total_steps - warm)
    return (1 + math.cos(math.pi * progress)) / 2


# -- the loop ---------------------------------------------------------------------------------------------------------
def train(model, rows, pad_id, args):
    """Returns the loss of each step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    steps_per_epoch = math.ceil(len(rows) / args.batch_size)
    total_steps = args.epochs * steps_per_epoch
    losses = []
    model.train()
    for epoch in range(args.epochs):
        order = np.random.default_rng([args.seed, epoch]).permutation(len(rows))  # tuneloop's documented order
        for start in range(0, len(rows), args.batch_size):
            step_rows = [rows[i] for i in order[start : start + args.batch_size]]
            # The mean is over all supervised tokens of the step. Its divisor is known before the first forward pass,
            # so micro-batches only add up; a mean of their means would weigh tokens of small ones more.
            tokens = sum(sum(row["weights"][1:]) for row in step_rows)
            loss = 0.0
            for first in range(0, len(step_rows), args.micro_batch):
                batch = collate(step_rows[first : first + args.micro_batch], pad_id)
                part = loss_sum(model, *batch) / tokens
                part.backward()  # adds to the gradients
                loss += part.item()
            torch.nn.utils.clip_grad_norm_(trained, max_norm=1.0)
            factor = cosine_with_warmup(len(losses), total_steps, args.warmup)
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * factor
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss)
            print(f"step {len(losses)}/{total_steps}  loss {loss:.4f}  learning rate {args.learning_rate * factor:.2e}")
    return losses


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="folder or hub id of a causal language model with a chat template"
    )
    parser.add_argument("--data", required=True, help="JSON Lines file of conversations")
    parser.add_argument("--out", required=True, help="folder for the adapter (lora) or the model (full)")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--rank", type=int, default=16, help="rank of the LoRA update")
    parser.add_argument("--alpha", type=int, default=32, help="the LoRA update is scaled by alpha / rank")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="conversations per optimizer step")
    parser.add_argument(
        "--micro-batch", type=int, default=8, help="conversations per forward pass; the result is equal"
    )
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="peak rate")
    parser.add_argument("--warmup", type=float, default=0.03, help="share of the steps in which the rate rises")
    parser.add_argument("--max-length", type=int, default=2048, help="longer conversations are left out, and counted")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(given)


def main(given=None):
    args = arguments(given)
    tokenizer, model = load(args)
    rendered = [render(tokenizer, messages, args.max_length) for messages in read_conversations(args.data)]
    rows = [row for row in rendered if row is not None]
    print(f"{len(rows)} of {len(rendered)} conversations; the others are too long or have no answer")
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    losses = train(model, rows, pad_id, args)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    return losses


if __name__ == "__main__":
    main()
