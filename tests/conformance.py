"""One architecture by one method through the whole of tuning; run as a program, it writes docs/architectures.md.

python tests/conformance.py docs/architectures.md       every architecture by every method, 20 steps each
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import MOE, PACKED, PADDED, tiny
from choices import CHOICES, LONGER, METHODS, REFUSED, UNCACHED, VARIANTS, rate_of
from peft import PeftModel
from toy import conversations, tune_in
from transformers import AutoModelForCausalLM

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.forward import attention
from tuneloop.forward import objective as forward
from tuneloop.generate.engine import Decoding
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models import adapters
from tuneloop.models.config import ModelConfig
from tuneloop.models.find import find_base
from tuneloop.models.load import load_model, model_from
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


def conform(folder: Path, key: str, root: Path, steps: int) -> Outcome:
    """Tunes the model of a folder and asserts: the loss falls; exported = trained, merged = adapter; answers are equal.

    Answers are those of our engine and of transformers' own `generate`, one prompt at a time. `key` is one of CHOICES.
    """
    base = find_base(ModelConfig(base=str(folder)))
    kind = FAMILY.make(CHOICES[key])
    steps *= LONGER.get(FAMILY.name_of(kind), 1)
    run, tuned, trained, packed = _tuned(base.path, key, root, steps)
    rows = metrics.read(run.path / "metrics.jsonl")
    losses = [row["loss"] for row in rows]
    assert len(losses) == steps and losses[-1] < 0.9 * losses[0], "the loss falls"
    if "router_loss" in rows[0]:
        told = jsonl.read(run.out / "expert_load.json")
        assert (run.out / "expert_load.html").is_file() and len(told["after"]) == len(told["routers"])

    batch = prompt_ids(load_tokenizer(base))
    expected = logits(trained, batch)
    spread = float(expected.std())
    start = _untuned(base.path)
    if len(start) == len(expected):  # else virtual tokens stand among them
        assert float((start - expected).abs().max()) > 0.01 * spread, "tuning changed something"
    adapted = replace(base, adapter=tuned.folder)
    loaded: Any = (
        adapters.load_with_adapter(adapted, torch.float32) if kind.adapter else model_from(tuned.folder, torch.float32)
    )
    rounding = 1e-4 * spread if on_another_base(kind) else 0.0
    assert _gap(logits(loaded, batch), expected) <= rounding, "exported = trained, saved = loaded"
    answers = _answers(loaded, tuned.folder, key)
    if not kind.adapter:
        return Outcome(packed, losses[0], losses[-1], merged=False)

    full = logits(adapters.attach(load_model(base, torch.float32), tuned.folder, base), batch)
    assert kind.quantization or _gap(full, expected) <= rounding
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), str(tuned.folder)).eval()
    assert _gap(logits(plain, batch), full) <= 1e-5 * spread, "what any other tool would load"
    if not kind.mergeable:
        with pytest.raises(ModelError, match=r"cannot be merged: .* tune with method lora"):
            merge(base, tuned.folder, root / "merged")
        assert not (root / "merged").exists()
        return Outcome(packed, losses[0], losses[-1], merged=False)
    check = merge(base, tuned.folder, root / "merged")
    assert check.passed and check.effect > 100 * check.max_abs
    merged = model_from(root / "merged", torch.float32)
    tolerance = 1e-4 if packed else EXACT  # recurrent layers carry rounding from token to token
    assert _gap(logits(merged, batch), full) < tolerance * spread, "merged = adapter on the full base"
    if kind.quantization:
        assert check.trained_kl is not None and check.effect_kl is not None
        assert check.trained_on and f"trained on a base in {check.trained_on}" in str(check)
        assert 0 < check.trained_kl < check.effect_kl and not torch.equal(full, expected)
    else:
        assert check.trained_on is None and _answers(merged, tuned.folder, key) == answers
    return Outcome(packed, losses[0], losses[-1], merged=True)


def on_another_base(kind: Any) -> bool:
    """Whether a method trains beside a changed base, so that what it leaves is an ordinary LoRA of twice the rank."""
    return getattr(kind, "init", "").startswith(("pissa", "olora"))


@cache  # many methods start at one base
def _untuned(folder: Path) -> torch.Tensor:
    """What the base says to the prompts of `merge`."""
    batch = prompt_ids(load_tokenizer(find_base(ModelConfig(base=str(folder)))))
    return logits(model_from(folder, torch.float32), batch)


def _gap(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).abs().max())


def _tuned(folder: Path, key: str, root: Path, steps: int) -> tuple[Any, Any, Any, bool]:
    """The run, what it left, the model as it was trained, and whether it was trained on packed rows."""
    kept: list[Any] = []
    export = stage.export

    def keeping(trained: Any, *rest: Any) -> None:
        kept.extend((trained, forward.core_of(trained).config._attn_implementation == attention.NAME))
        export(trained, *rest)

    stage.export = keeping
    try:
        run, tuned = tune_in(
            root, {"base": str(folder)}, method=CHOICES[key], batch_size=12, steps=steps, learning_rate=rate_of(key)
        )  # fmt: skip
    finally:
        stage.export = export
    trained, packed = kept
    forward.use_standard(forward.core_of(trained))
    return run, tuned, trained.eval(), packed


def _answers(model: Any, folder: Path, key: str) -> list[tuple[int, ...]]:
    """Our engine's answers, which must be those of `generate`."""
    cached = (key, forward.core_of(model).config.model_type) not in UNCACHED
    renderer = Renderer(load_tokenizer(find_base(ModelConfig(base=str(folder)))))
    prompts = [renderer.prompt(example.prompt, example.tools) for example in conversations(3)]
    done = TransformersEngine(model, renderer).complete(prompts, Decoding(NEW), stop_ids=[NO_ID])
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
