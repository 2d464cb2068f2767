"""Merges an adapter into its base: a standard folder, published only once its logits equal those of adapter + base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tuneloop.core import jsonl
from tuneloop.core.errors import ModelError
from tuneloop.models import adapters, cache, safety
from tuneloop.models.find import Base
from tuneloop.models.load import load_model, model_from
from tuneloop.models.quantize import Quantization, available
from tuneloop.models.save import round_parameters, unwritable, write_model
from tuneloop.models.tokenizer import load_tokenizer

PROMPTS = (
    "What is the capital of France?",
    "Sort this review as positive or negative: the plot is thin, but the actors carry it with wit and warmth.",
    "法国的首都是哪里？请用一句话回答。",
    "一个苹果三元，买十二个要付多少钱？",
    'Fill the form as JSON: {"name": ..., "city": ...}. Anna Meier, 34, has lived in Graz since 1998.',
    "1, 1, 2, 3, 5, 8, 13,",
)
NOT_MERGEABLE = {
    "BOTTLENECK": "its adapters are non-linear layers of their own, which no weight of the base can express",
    "PROMPT_TUNING": "its virtual tokens are inputs, not weights",
    "PREFIX_TUNING": "its virtual keys and values are inputs of attention, not weights",
}
"""Type of adapter in adapter_config.json → why it cannot become part of its base."""
CHANGED = (BaseTunerLayer, AuxiliaryTrainingWrapper)
"""What peft puts in the place of a layer that an adapter changes."""
EXACT = 1e-3
"""Largest difference, in standard deviations of the logits, between two fp32 computations of the same function."""
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 2e-2}
"""dtype → mean KL in nats that rounding explains (single logits are not bound: a router of experts may flip)."""


@dataclass(frozen=True)
class MergeCheck:
    """How equal adapter + base and the merged folder are, in fp32 on `positions` tokens of `prompts` prompts.

    Three differences in logits: `merge_error` (merged in memory against adapter + base), `reload_error` (the folder,
    loaded again, against what was to be written) and `max_abs` (the folder against adapter + base: both errors and the
    rounding to `dtype`). `spread` is the logits' standard deviation, `kl` the mean KL(adapter || merged) in nats,
    `agreement` the share of positions with the same best token. `effect` and `effect_kl` say how far the adapter moves
    the base: what must survive the rounding.
    """

    prompts: int
    positions: int
    dtype: str
    merge_error: float
    reload_error: float
    max_abs: float
    spread: float
    kl: float
    agreement: float
    effect: float
    effect_kl: float
    trained_on: str | None = None
    """How the base was held while the adapter was trained, where that was not in full."""
    trained_kl: float | None = None
    """Mean KL(adapter on that base || adapter on the full base): what merging into the full base changes besides."""

    @property
    def passed(self) -> bool:
        exact = max(self.merge_error, self.reload_error) <= EXACT * self.spread
        return exact and self.kl <= ROUNDING[getattr(torch, self.dtype)]

    @property
    def drowned(self) -> bool:
        """Whether rounding changes the answers more than a tenth as much as the adapter does."""
        return self.kl > 0.1 * self.effect_kl

    def __str__(self) -> str:
        text = (
            f"merged against adapter + base on {self.positions} positions: largest difference {self.max_abs:.2g} "
            f"logits (the adapter itself: {self.effect:.2g}), KL {self.kl:.1e} nats (the adapter itself: "
            f"{self.effect_kl:.1e}), same best token {self.agreement:.1%}; merging error {self.merge_error:.1e}, "
            f"reload error {self.reload_error:.1e}"
        )
        if self.trained_on:
            moved = "not measured (no bitsandbytes here)" if self.trained_kl is None else f"{self.trained_kl:.1e} nats"
            text += f"; the adapter was trained on a base in {self.trained_on}, KL from there to the full one {moved}"
        weak = f". The adapter changes so little that rounding to {self.dtype} drowns it: merge with dtype fp32"
        return text + weak if self.drowned and self.dtype != "float32" else text


def merge(
    base: Base, adapter_folder: Path, out: Path, *, dtype: torch.dtype | None = None, stop_ids: Sequence[int] = ()
) -> MergeCheck:
    """Writes base + adapter as one standard folder at `out` and returns how equal it is.

    Merges in fp32 and saves in `dtype` (default: that of the base's own weights), so it needs memory for the base in
    fp32. Raises ModelError when the adapter does not belong to the base or the folder, loaded again, computes something
    else than adapter + base; then `out` is as it was before.
    """
    check_mergeable(adapter_folder)
    tokenizer = load_tokenizer(base)
    record = adapters.read_record(adapter_folder)
    if record is not None and record.chat_template is not None:
        tokenizer.chat_template = record.chat_template
    saved_in = dtype or stored_dtype(base)
    model = load_model(base, torch.float32, seed=record.seed if record is not None else 0)
    adapted = adapters.attach(model, adapter_folder, base)
    batch = prompt_ids(tokenizer)
    expected_PV = logits(adapted, batch)
    with adapted.disable_adapter():
        plain_PV = logits(adapted, batch)
    trained_on = record.quantization if record is not None else None
    trained_kl = _kl_from(base, adapter_folder, trained_on, expected_PV, batch) if trained_on and available() else None
    _untie(adapted)
    merged = adapted.merge_and_unload(safe_merge=True)
    in_memory_PV = logits(merged, batch)
    try:
        with cache.building(out) as folder:
            write_model(merged, tokenizer, folder, stop_ids=stop_ids or _stop_ids(adapter_folder), dtype=saved_in)
            round_parameters(merged, saved_in)
            written_PV = logits(merged, batch)
            del model, adapted, merged  # the reload should not need both in memory
            found_PV = logits(model_from(folder, torch.float32), batch)
            check = compare(expected_PV, in_memory_PV, written_PV, found_PV, plain_PV, saved_in)
            check = replace(check, trained_on=trained_on, trained_kl=trained_kl)
            if not check.passed:
                raise ModelError(
                    f"the merged model differs from adapter + base and was not kept: {check}. Keep the adapter and "
                    f"merge with dtype fp32; if that fails too, report it with the base and adapter_config.json."
                )
            jsonl.write(folder / "tuneloop.json", {
                "version": 1, "base": base.name, "weights_digest": base.weights_digest, "licence": base.licence,
                "adapter": cache.digest_of(adapter_folder, ("adapter_config.json", adapters.WEIGHTS)),
                "merge_check": asdict(check),
            })  # fmt: skip
    except (OSError, SafetensorError) as error:
        raise unwritable(out, error) from error
    return check


def check_mergeable(adapter_folder: Path) -> None:
    """Raises ModelError for an adapter that stays beside its base whatever is done."""
    kind = str(adapters.check_folder(adapter_folder).get("peft_type"))
    if kind in NOT_MERGEABLE:
        raise ModelError(
            f"{adapter_folder} cannot be merged: {NOT_MERGEABLE[kind]}. Use base and adapter together (tuneloop chat "
            f"and evaluate do), or tune with method lora, whose adapters merge."
        )


def _untie(adapted: PeftModel) -> None:
    """Parts the head from the embeddings where they are one tensor and the adapter changes one of them."""
    core: Any = adapted.get_base_model()
    layers = (core.get_input_embeddings(), core.get_output_embeddings())
    if not core.config.tie_word_embeddings or not any(isinstance(layer, CHANGED) for layer in layers):
        return
    core.config.tie_word_embeddings = False
    for layer in layers:
        plain: Any = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
        if not isinstance(layer, AuxiliaryTrainingWrapper):  # which holds a trained copy of its own
            plain.weight = nn.Parameter(plain.weight.detach().clone(), requires_grad=False)


def _kl_from(
    base: Base, adapter_folder: Path, quantization: Quantization, full_PV: torch.Tensor, batch: list[list[int]]
) -> float:
    """Mean KL from adapter + base as it was trained to adapter + full base."""
    model = load_model(base, torch.float32, quantization=quantization)
    return _kl(logits(adapters.attach(model, adapter_folder, base), batch), full_PV)


def stored_dtype(base: Base) -> torch.dtype:
    """The dtype of the base's saved weights; fp32 for a new architecture."""
    config = safety.read_config(base.path / "config.json")
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    dtype = getattr(torch, name, None)
    return dtype if dtype in ROUNDING and not base.is_new else torch.float32


def _stop_ids(adapter_folder: Path) -> list[int]:
    return list(safety.read_config(adapter_folder / adapters.RECORD).get("stop_ids", ()))


def prompt_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The check's prompts as token ids, by the chat template where there is one."""
    if not tokenizer.chat_template:
        return [list(tokenizer(text)["input_ids"]) for text in PROMPTS]
    chats = [[{"role": "user", "content": text}] for text in PROMPTS]
    texts = [str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)) for chat in chats]
    return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def logits(model: PreTrainedModel | PeftModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """fp32 logits [positions, vocabulary] of all prompts, one after another, so that no padding can matter."""
    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0] for ids in batch]
    return torch.cat([row.float().cpu() for row in rows])


def compare(
    expected_PV: torch.Tensor,
    in_memory_PV: torch.Tensor,
    written_PV: torch.Tensor,
    found_PV: torch.Tensor,
    plain_PV: torch.Tensor,
    dtype: torch.dtype,
) -> MergeCheck:
    """The numbers of a MergeCheck; P positions, V vocabulary.

    Logits of adapter + base, of the merged weights in memory, of these rounded to `dtype`, of the folder loaded again,
    and of the base alone.
    """
    if expected_PV.shape != found_PV.shape or not bool(torch.isfinite(found_PV).all()):
        raise ModelError("the merged model's logits have another shape or are not finite; it was not kept")
    same_P = expected_PV.argmax(-1) == found_PV.argmax(-1)
    return MergeCheck(
        prompts=len(PROMPTS),
        positions=len(expected_PV),
        dtype=str(dtype).removeprefix("torch."),
        merge_error=_distance(expected_PV, in_memory_PV),
        reload_error=_distance(written_PV, found_PV),
        max_abs=_distance(expected_PV, found_PV),
        spread=float(expected_PV.std()),
        kl=_kl(expected_PV, found_PV),
        agreement=float(same_P.float().mean()),
        effect=_distance(expected_PV, plain_PV),
        effect_kl=_kl(expected_PV, plain_PV),
    )


def _distance(a_PV: torch.Tensor, b_PV: torch.Tensor) -> float:
    return float((a_PV - b_PV).abs().max())


def _kl(p_PV: torch.Tensor, q_PV: torch.Tensor) -> float:
    """Mean KL(p || q) in nats."""
    p, q = p_PV.log_softmax(-1), q_PV.log_softmax(-1)
    return max(0.0, float((p.exp() * (p - q)).sum(-1).mean()))
