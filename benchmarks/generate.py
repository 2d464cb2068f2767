"""Greedy answers side by side: tuneloop's engine and transformers.generate, the same model, prompts and precision.

    python benchmarks/generate.py ROWS.jsonl [--column question] [--model embedded] [--rows 500] [--new 256]
        [--dtype bf16] [--batch 32 --batch 64 …] [--alone] [--rounds 3]

`generate` gets its best: prompts sorted by length, left-padded, at several batch sizes; `--alone` is its plain use, one
prompt at a time in the given order. The contestants take turns within each round. Prints a Markdown table of medians,
the rows whose answers differ from tuneloop's, and the loss of margin at the first token where they do: 0 or a rounding
step of the logits is a tie, which precision decides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from training.measure import about_machine

from tuneloop.core.conversation import Message
from tuneloop.generate.engine import Decoding
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models.adapters import load_with_adapter
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.packed import pack
from tuneloop.models.precision import pick_dtype
from tuneloop.render.load import renderer_of

Answers = list[tuple[int, ...]]


def generated(model: Any, renderer: Any, prompts: Sequence[Sequence[int]], batch: int, new: int) -> Answers:
    """By transformers.generate, longest prompts first; in the given order where the batch is one prompt."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row])) if batch > 1 else range(len(prompts))
    out: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(prompts), batch):
        part = order[start : start + batch]
        width = max(len(prompts[row]) for row in part)
        pads = [width - len(prompts[row]) for row in part]
        ids = [[renderer.pad_id] * pad + list(prompts[row]) for pad, row in zip(pads, part, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        with torch.inference_mode():
            found = model.generate(
                torch.tensor(ids), attention_mask=torch.tensor(mask), max_new_tokens=new, do_sample=False,
                eos_token_id=sorted(renderer.stop_ids), pad_token_id=renderer.pad_id,
            )  # fmt: skip
        for row, tokens in zip(part, found[:, width:].tolist(), strict=True):
            end = next((place for place, token in enumerate(tokens) if token in renderer.stop_ids), len(tokens))
            out[row] = tuple(tokens[:end])
    return [out[row] for row in range(len(prompts))]


def margins(model: Any, prompts: Sequence[Sequence[int]], ours: Answers, theirs: Answers) -> list[float]:
    """Of each row that differs: by how much the model's own logits, in float32, prefer one of the two tokens."""
    found: list[float] = []
    wide = model.float()
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        if one == other:
            continue
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        with torch.inference_mode():
            logits = wide(torch.tensor([[*prompt, *one[:at]]])).logits[0, -1]
        top = logits.topk(2).values
        found.append(float(top[0] - top[1]))
    return found


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("path", type=Path)
    parse.add_argument("--column", default="question")
    parse.add_argument("--model", default="embedded")
    parse.add_argument("--rows", type=int, default=500)
    parse.add_argument("--new", type=int, default=256)
    parse.add_argument("--dtype", default="auto")
    parse.add_argument("--batch", type=int, action="append", default=None)
    parse.add_argument("--alone", action="store_true")
    parse.add_argument("--rounds", type=int, default=3)
    options = parse.parse_args()
    base = find_base(ModelConfig(base=options.model))
    dtype, _ = pick_dtype(options.dtype, "cpu")
    model, packed = (load_with_adapter(base, dtype, seed=0, device="cpu").eval() for _ in range(2))
    pack(packed)
    renderer = renderer_of(base)
    lines = options.path.read_text("utf-8").splitlines()[: options.rows]
    prompts = [renderer.prompt((Message("user", json.loads(line)[options.column]),)) for line in lines]
    engine = TransformersEngine(packed, renderer)  # as evaluation loads it

    def ours() -> Answers:
        return [one.ids for one in engine.complete(prompts, Decoding(options.new))]

    contestants: dict[str, Callable[[], Answers]] = {"tuneloop": ours}
    for batch in [*(options.batch or [32, 64]), *([1] if options.alone else [])]:
        name = f"generate, batches of {batch}, by length" if batch > 1 else "generate, one by one"
        contestants[name] = lambda batch=batch: generated(model, renderer, prompts, batch, options.new)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, Answers] = {}
    engine.complete(prompts[:4], Decoding(2))
    for _ in range(options.rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            answers[name] = run()
            seconds[name].append(time.perf_counter() - started)
    _print(options, str(dtype), prompts, seconds, answers, model)


def _print(
    options: argparse.Namespace, dtype: str, prompts: Any, seconds: dict[str, list[float]], answers: Any, model: Any
) -> None:
    ours = statistics.median(seconds["tuneloop"])
    cut = sum(len(one) >= options.new for one in answers["tuneloop"])
    tokens = sum(map(len, answers["tuneloop"]))
    machine = about_machine()
    print(f"- machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['has'])})")
    print(
        f"- {len(prompts)} prompts of {sum(map(len, prompts)) / len(prompts):.0f} tokens on average, {dtype}, at most"
    )
    print(f"  {options.new} new tokens: {tokens:,} of them, {cut} answers cut; {options.rounds} rounds, torch "
          f"{torch.__version__}, {torch.get_num_threads()} threads\n")  # fmt: skip
    print("| contestant | median s | samples | tokens/s | tuneloop × | rows that differ |\n|---|--:|---|--:|--:|--:|")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        differ = sum(a != b for a, b in zip(answers[name], answers["tuneloop"], strict=True))
        times = f"{median / ours:.1f}" if name != "tuneloop" else "–"
        samples = ", ".join(f"{one:.1f}" for one in taken)
        made = sum(map(len, answers[name]))
        print(f"| {name} | {median:.1f} | {samples} | {made / median:,.0f} | {times} | {differ} |")
    for name, found in answers.items():
        if found != answers["tuneloop"]:
            gaps = sorted(margins(model, prompts, answers["tuneloop"], found))
            middle, largest = gaps[len(gaps) // 2], gaps[-1]
            text = f"the two best float32 logits are {middle:.3f} apart in the median, {largest:.3f} at most"
            print(f"\n{name}: where an answer first differs, {text}")


if __name__ == "__main__":
    main()
