"""Whether a model in fewer bits says what it says in full precision: measured before it may serve, and remembered.

Both read the same prompts and the same answers, those of full precision (greedy); compared is the next word at each
place of an answer. Knows nothing of how a model is held in fewer bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tuneloop.core import digest, jsonl
from tuneloop.core.conversation import Example
from tuneloop.core.errors import ModelError
from tuneloop.core.example_file import ExampleFile
from tuneloop.core.runs import Run
from tuneloop.evaluate.probes import has_answer, is_prose, read_probes
from tuneloop.forward.objective import logit_finish, trunk_of
from tuneloop.generate.engine import Decoding
from tuneloop.generate.transformers_engine import TransformersEngine
from tuneloop.models import cache
from tuneloop.models.fewer_bits import Fewer, Scheme
from tuneloop.models.find import Base
from tuneloop.models.mixed import MixedAdapters
from tuneloop.render.rendered import Unrenderable
from tuneloop.render.template import Renderer
from tuneloop.serve.config import QuantizeConfig

PROMPTS, LONGEST, NEW = 64, 768, 24
"""Prompts that are asked, their tokens at most, and tokens of an answer: where answers are that long, a share of 0.95
is known to within 0.011 (two standard errors)."""
VERSION = 1  # of the measurement, for what is remembered


@dataclass(frozen=True)
class Agreement:
    """Of a model in fewer bits with itself in full precision."""

    tokens: int
    same: float
    """Share of the places where both choose the same word."""
    kl: float
    """Mean of KL(full ‖ fewer) in nats a token, over the whole vocabulary."""
    kl_p99: float
    """What one place of a hundred exceeds."""

    def __str__(self) -> str:
        return (
            f"{self.same:.1%} of {self.tokens:,} words the same, KL {self.kl:.4f} nats a token, "
            f"99 of 100 below {self.kl_p99:.3f}"
        )


@dataclass(frozen=True)
class Subject:
    """What is compared: a base held in fewer bits, with an adapter or without."""

    scheme: Scheme
    renderer: Renderer
    base: Base
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.base.name if self.adapter is None else f"{self.base.name} with {self.adapter.parent.parent.name}"


def questions(run: Path | None) -> list[Example]:
    """The validation rows of a tune run, as far as they are still there; else the embedded probes."""
    if run is not None and (run / "run.json").is_file():
        record = Run.open(run).record
        rows = Path(record["folder"], record.get("data", ""), "out", "val.jsonl")
        if rows.is_file() and len(found := ExampleFile(rows)):
            step = max(1, len(found) // PROMPTS)
            return [found[index] for index in range(0, len(found), step)][:PROMPTS]
    answered = [example for example in read_probes("embedded") if has_answer(example)]
    return answered[:: max(1, len(answered) // PROMPTS)][:PROMPTS]


Measured = Callable[[Subject, Sequence[Sequence[int]], bool], Agreement]
"""How `measure` comes to its model: (subject, prompts, whether they are prose)."""


def check(subject: Subject, examples: Sequence[Example], limits: QuantizeConfig, measured: Measured) -> Agreement:
    """The agreement, measured once per machine, model and prompts. Raises ModelError where it is below the limits."""
    prompts = tokenized(subject.renderer, examples)
    if not prompts:
        raise ModelError(f"{subject.name}: no prompt to compare {subject.scheme} with full precision")
    found = _remembered(subject, prompts, all(map(is_prose, examples)), measured)
    if found.same < limits.same or not found.kl <= limits.kl or not found.kl_p99 <= limits.kl_p99:
        raise ModelError(
            f"{subject.name} in {subject.scheme} differs too much from full precision: {found}; wanted are "
            f"{limits.same:.1%}, {limits.kl} and {limits.kl_p99}. Set serve.quantize.scheme: none"
            f"{' or int8' if subject.scheme == 'int4' else ''}, or, where that is good enough, wider limits there"
        )
    return found


def measure(
    model: PreTrainedModel, held: Fewer, subject: Subject, prompts: Sequence[Sequence[int]], prose: bool
) -> Agreement:
    """Compares both forms of a model on the answers of full precision; prose goes on where an answer would stop.

    Raises ModelError for an adapter that cannot be mixed.
    """
    name = "compared"
    fewer = MixedAdapters(model, subject.base)
    with ExitStack() as stack, torch.inference_mode():
        with held.full():
            full = MixedAdapters(model, subject.base)
        for mixed in (full, fewer):  # each knows its own layers
            if subject.adapter is not None:
                stack.callback(mixed.remove, name)
                mixed.add(name, subject.adapter)
                stack.enter_context(mixed.routed({name: None}))
        with held.full():
            answers = TransformersEngine(model, subject.renderer).complete(
                prompts, Decoding(NEW), stop_ids=() if prose else None
            )
        divergence: list[Tensor] = []
        same: list[Tensor] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            if answer.refused is None:
                ids = [*prompt, *answer.ids]
                with held.full():
                    full_TV = _log_p(model, ids, len(prompt))
                fewer_TV = _log_p(model, ids, len(prompt))
                divergence.append((full_TV.exp() * (full_TV - fewer_TV)).sum(-1))
                same.append(full_TV.argmax(-1) == fewer_TV.argmax(-1))
        if not same:
            raise ModelError(f"{subject.name}: no prompt leaves room for an answer")
        kl_N, same_N = torch.cat(divergence), torch.cat(same).float()
    worst = float(kl_N.quantile(0.99)) if bool(kl_N.isfinite().all()) else float("inf")
    return Agreement(len(kl_N), float(same_N.mean()), float(kl_N.mean()), worst)


def _log_p(model: PreTrainedModel, ids: Sequence[int], start: int) -> Tensor:
    """log p [answer and what ends it, V] of the next token, where the prompt has `start` tokens."""
    hidden_TD = trunk_of(model)(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    head, finish = model.get_output_embeddings(), logit_finish(model)
    assert head is not None
    logits_TV = head(hidden_TD[start - 1 :])
    return (finish(logits_TV) if finish else logits_TV).float().log_softmax(-1)


def tokenized(renderer: Renderer, examples: Sequence[Example]) -> list[list[int]]:
    """The prompts of examples, without those that cannot be rendered or are longer than LONGEST."""
    found: list[list[int]] = []
    for example in examples:
        try:
            prompt = renderer.prompt(example.prompt, example.tools)
        except Unrenderable:
            continue
        if 0 < len(prompt) <= LONGEST:
            found.append(prompt)
    return found


def _remembered(subject: Subject, prompts: Sequence[Sequence[int]], prose: bool, measured: Measured) -> Agreement:
    flags = {name: value for name, value in torch.cpu.get_capabilities().items() if value is True}
    adapter = None if subject.adapter is None else cache.adapter_digest(subject.adapter)
    key = digest.of_value(
        [
            VERSION,
            subject.base.digest,
            adapter,
            subject.scheme,
            list(map(list, prompts)),
            prose,
            flags,
            torch.__version__,
        ]
    )
    file = cache.root() / "agreement" / f"{digest.short(key, 32)}.json"
    if file.is_file():
        return Agreement(**jsonl.read(file))
    found = measured(subject, prompts, prose)
    if found.kl_p99 < float("inf"):
        jsonl.write(file, asdict(found))
    return found
