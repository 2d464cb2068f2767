"""One architecture by one method through the whole of tuning; run as a program, it writes docs/architectures.md.

python tests/conformance.py docs/architectures.md       every architecture by every method, 20 steps each
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from architectures import MOE, PACKED, PADDED, tiny
from toy import conversations, tune_in

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.forward import attention
from tuneloop.forward import objective as forward
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import model_from
from tuneloop.models.merge import EXACT, logits, merge, prompt_ids
from tuneloop.models.save import save_model
from tuneloop.models.tokenizer import load_tokenizer
from tuneloop.render.template import Renderer
from tuneloop.track import metrics
from tuneloop.tune import train as stage
from tuneloop.tune.methods import FAMILY

MARKS = ("<!-- table -->", "<!-- end of table -->")
NEW = 5  # tokens of each answer
NO_ID = 1_000_000  # a stop that never comes, so that all answers are whole
LOW_RANK: dict[str, Any] = {"rank": 4, "alpha": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": LOW_RANK, "dora": LOW_RANK, "qlora": LOW_RANK, "freeze": {"layers": 1}, "adapter": {"reduction": 4},
    "prompt": {"tokens": 64}, "prefix": {"tokens": 16}, "sparse": {"fraction": 0.2},
}  # fmt: skip
"""Options of methods whose defaults are too large, or too small, for models of two layers."""
RATES = {"ia3": 0.2, "prompt": 0.1, "prefix": 0.3, "bitfit": 0.1, "sparse": 0.03}
"""Learning rates where 1e-2 teaches so few parameters nothing in so few steps."""
LONGER = {"prompt": 3}
"""How many times the steps a method needs: what a prompt says fades in random recurrent layers and short windows."""
VARIANTS: dict[str, Any] = {"lora + experts": {"lora": {"rank": 4, "alpha": 8, "experts": True}}}
"""Methods with options that only models with stacked experts have."""
METHODS: dict[str, Any] = {**{name: {name: OPTIONS.get(name, {})} for name in FAMILY.names()}, **VARIANTS}

HYBRID = ("mamba2", "falcon_h1", "jamba", "qwen3_next")
REFUSED: dict[tuple[str, str], str] = {
    # a shared prefix of keys and values has no place in a recurrent state, nor one size in DeepSeek's latent cache
    **{("prefix", name): "needs layers of attention alone.*use method prompt" for name in HYBRID},
    **{
        ("prefix", name): "has 1 heads of size 16 in its cache.*use method prompt"
        for name in ("deepseek_v2", "deepseek_v3")
    },
    # peft renames these layers to those of stacked experts, and adapts parameters without DoRA
    **{
        ("dora", name): r"feed-forwards of .*use plain lora without it, or .*targets: \["
        for name in ("deepseek_v2", "deepseek_v3", "glm4_moe", "qwen3_next")
    },
    # Mamba's block is neither attention nor a feed-forward, and makes no keys and values
    ("adapter", "mamba2"): "no attention was found.*choose another",
    ("ia3", "mamba2"): "which layer .* ends a feed-forward is not known",
}
"""Pairs that cannot be had, and what tuneloop must say about each: a refusal with what to do instead."""
UNCACHED = {("prompt", "mamba2")}
"""Pairs whose virtual tokens peft's `generate` loses from the second token on: Mamba's cache is not under the name it
knows. There the reference is `generate` without a cache."""


@dataclass(frozen=True)
class Outcome:
    """What a run through all stations found."""

    packed: bool
    first: float
    last: float
    merged: bool


def fits(method: str, architecture: str) -> bool:
    """Whether a method is meant for an architecture."""
    return method not in VARIANTS or architecture in MOE


def conform(folder: Path, method: str, root: Path, steps: int) -> Outcome:
    """Tunes the model of a folder and asserts: the loss falls; exported = trained, merged = adapter; answers are equal.

    Answers are those of our engine and of transformers' own `generate`, one prompt at a time.
    """
    base = find_base(ModelConfig(base=str(folder)))
    kind = FAMILY.make(METHODS[method])
    steps *= LONGER.get(method, 1)
    run, tuned, trained, packed = _tuned(base.path, method, root, steps)
    rows = metrics.read(run.path / "metrics.jsonl")
    losses = [row["loss"] for row in rows]
    assert len(losses) == steps and losses[-1] < 0.9 * losses[0], "the loss falls"
    if "router_loss" in rows[0]:
        told = jsonl.read(run.out / "expert_load.json")
        assert (run.out / "expert_load.html").is_file() and len(told["after"]) == len(told["routers"])

    tokenizer = load_tokenizer(base)
    batch = prompt_ids(tokenizer)
    expected = logits(trained, batch)
    spread = float(expected.std())
    if kind.adapter:
        loaded: Any = adapters.load_with_adapter(replace(base, adapter=tuned.folder), torch.float32)
    else:
        loaded = model_from(tuned.folder, torch.float32)
    assert torch.equal(logits(loaded, batch), expected), "exported = trained, saved = loaded"
    start = logits(model_from(base.path, torch.float32), batch)
    if len(start) == len(expected):  # else virtual tokens stand among them
        assert float((start - expected).abs().max()) > 0.01 * spread, "tuning changed something"
    cached = (method, forward.core_of(loaded).config.model_type) not in UNCACHED
    answers = _answers(loaded, tuned.folder, cached)
    merging = kind.adapter and kind.mergeable
    if merging:
        check = merge(base, tuned.folder, root / "merged")
        assert check.passed
        merged = model_from(root / "merged", torch.float32)
        if kind.quantization:  # merged into the full-precision base, from which the trained one was rounded
            assert check.trained_kl is not None
            return Outcome(packed, losses[0], losses[-1], merging)
        assert check.effect > 100 * check.max_abs
        tolerance = 1e-4 if packed else EXACT  # recurrent layers carry rounding from token to token
        assert float((logits(merged, batch) - expected).abs().max()) < tolerance * spread, "merged = adapter"
        assert _answers(merged, tuned.folder, cached) == answers
    return Outcome(packed, losses[0], losses[-1], merging)


def _tuned(folder: Path, method: str, root: Path, steps: int) -> tuple[Any, Any, Any, bool]:
    """The run, what it left, the model as it was trained, and whether it was trained on packed rows."""
    kept: list[Any] = []
    export = stage.export

    def keeping(trained: Any, *rest: Any) -> None:
        kept.extend((trained, forward.core_of(trained).config._attn_implementation == attention.NAME))
        export(trained, *rest)

    stage.export = keeping
    try:
        run, tuned = tune_in(
            root, {"base": str(folder)}, method=METHODS[method], batch_size=12, steps=steps,
            learning_rate=RATES.get(method, 1e-2),
        )  # fmt: skip
    finally:
        stage.export = export
    trained, packed = kept
    forward.use_standard(forward.core_of(trained))
    return run, tuned, trained.eval(), packed


def _answers(model: Any, folder: Path, cached: bool) -> list[tuple[int, ...]]:
    """Our engine's answers, which must be those of `generate`."""
    renderer = Renderer(load_tokenizer(find_base(ModelConfig(base=str(folder)))))
    prompts = [renderer.prompt(example.prompt, example.tools) for example in conversations(3)]
    done = TransformersEngine(model, renderer).complete(prompts, max_new_tokens=NEW, stop_ids=[NO_ID])
    for prompt, answer in zip(prompts, done, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False,
            eos_token_id=[NO_ID], pad_token_id=0, use_cache=cached,
        )[0].tolist()  # fmt: skip
        assert whole in ([*prompt, *answer.ids], [*answer.ids]), "engine = generate"
    return [answer.ids for answer in done]


def table(folder_of: Callable[[str], Path], steps: int) -> list[str]:
    """Lines of a Markdown table over all architectures; `folder_of` gives the folder of a tiny model by name."""
    head = ["architecture", "rows", *METHODS]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reasons = ["", "Refused, as tuneloop says it:"]
    for name in (*PACKED, *PADDED):
        rows, cells = "padded", []
        for method in METHODS:
            if not fits(method, name):
                cells.append("")
                continue
            with tempfile.TemporaryDirectory() as root:
                try:
                    outcome = conform(folder_of(name), method, Path(root), steps)
                except ModelError as error:
                    if (method, name) not in REFUSED:
                        raise
                    cells.append("refused")
                    reasons.append(f"- {method}, {name}: {error}")
                    continue
            rows = "packed" if outcome.packed else rows
            cells.append(f"{outcome.first:.2f} → {outcome.last:.2f}")
        lines.append("| " + " | ".join([name, rows, *cells]) + " |")
        print(lines[-1], flush=True)
    return [*lines, *reasons]


def main(page: Path) -> None:
    """Puts the table between the page's two marks."""
    from tiny_tokenizer import train_tokenizer

    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    with tempfile.TemporaryDirectory() as root:

        def folder_of(name: str) -> Path:
            folder = Path(root) / name
            if not folder.exists():
                save_model(tiny(tokenizer, name), tokenizer, folder)
            return folder

        lines = table(folder_of, steps=20)
    before, _, rest = page.read_text("utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
