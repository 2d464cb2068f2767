"""An Engine over a transformers model in this process: which prompts join when, and what is said of their answers.

A decode loop of our own, because `generate` keeps finished rows in the batch, pads every row to the longest, and
computes what prompts have in common once for each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache, PreTrainedModel

from tuneloop.core.errors import ModelError
from tuneloop.forward import attention, virtual
from tuneloop.forward.attention import Unsupported
from tuneloop.forward.objective import refuse_long
from tuneloop.generate import exact, slots
from tuneloop.generate.decoding import DecodeLoop, Form, Row
from tuneloop.generate.engine import Completion, Decoding, Done, Request
from tuneloop.generate.padded import Padded, cache_name
from tuneloop.generate.slots import Slots
from tuneloop.models.fit import available_memory
from tuneloop.render.rendered import Unrenderable

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer

SEATS = 256
"""Rows at work at once: more fill a machine's products no better, and what each of them remembers takes memory."""
MEMORY = 0.4
"""Share of the free memory that keys and values may take."""
WINDOW = 1024  # waiting prompts that are looked at when some may join


class TransformersEngine:
    """Answers that do not depend on the other requests; prompts join `batch_tokens` tokens at a time at most.

    `model` is a PreTrainedModel or a PEFT model around one; it runs in its own precision on its own device.
    """

    def __init__(
        self, model: torch.nn.Module, renderer: Renderer, identity: str = "", batch_tokens: int = 4_096
    ) -> None:
        self.model, self.renderer, self.identity, self.batch_tokens = model, renderer, identity, batch_tokens

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer: prompts by the model's own template, up to its stop tokens."""
        found: dict[int, Completion] = {}

        def give(place: int, completion: Completion) -> None:
            found[place] = completion
            if done is not None:
                done(place, completion)

        prompts: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            try:
                prompts[place] = self.renderer.prompt(request.messages, request.tools)
            except Unrenderable as error:
                give(place, Completion((), "", False, refused=error.reason))
        places, seeds = list(prompts), [requests[place].seed for place in prompts]
        self.complete(
            list(prompts.values()), decoding, seeds=seeds, done=lambda row, completion: give(places[row], completion)
        )
        return [found[place] for place in range(len(requests))]

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        *,
        seeds: Sequence[int] | None = None,
        stop_ids: Collection[int] | None = None,
        done: Done | None = None,
    ) -> list[Completion]:
        """The same for prompts as token ids; by default seeds are 0 and the renderer's stop tokens count.

        A prompt that leaves no room in the context is refused with the reason.
        """
        core = _pretrained(self.model)
        stops = frozenset(self.renderer.stop_ids if stop_ids is None else stop_ids)
        context = getattr(core.config.get_text_config(), "max_position_embeddings", None)
        start = virtual.count(self.model)
        found: dict[int, Completion] = {}
        rows: list[Row] = []
        for place, prompt in enumerate(prompts):
            refusal = _refusal(prompt, start, context)
            if refusal is not None:
                found[place] = refusal
                if done is not None:
                    done(place, refusal)
                continue
            room = decoding.max_new_tokens if context is None else context - start - len(prompt)
            rows.append(Row(place, prompt, min(room, decoding.max_new_tokens), seeds[place] if seeds else 0))
        rows.sort(key=lambda row: -len(row.prompt))
        with closing(self._decode(core, rows, start, decoding, stops)) as finished:  # the model is put right at once
            for row in finished if rows else ():
                found[row.place] = completion = self._completion(row.new, stops)
                if done is not None:
                    done(row.place, completion)
        return [found[place] for place in range(len(prompts))]

    def _decode(
        self, core: PreTrainedModel, rows: list[Row], start: int, decoding: Decoding, stops: frozenset[int]
    ) -> Generator[Row]:
        """The rows as they finish. Where the memory of an accelerator does not suffice, half as many at a time."""
        longest = start + max(len(row.prompt) + row.room for row in rows)
        with _evaluating(self.model), torch.inference_mode():
            with attention.standard(core):
                beginning = virtual.beginning(self.model, core, cache_name(core))
            a_token = _bytes_in_slots(core, beginning, start, rows, longest)
            seats = min(len(rows), SEATS)
            if a_token:
                memory = MEMORY * available_memory(str(core.device))
                seats = max(1, min(seats, int(memory / (a_token * longest))))
            left = dict.fromkeys(rows)
            with slots.attending(core) if a_token else attention.standard(core):
                while left:
                    form: Form = (
                        Slots(core, beginning, start, seats)
                        if a_token
                        else Padded(core, beginning, start, seats, longest)
                    )
                    try:
                        for row in self._at_work(form, list(left), DecodeLoop(form, decoding, stops)):
                            del left[row]
                            yield row
                    except torch.OutOfMemoryError as error:
                        if seats == 1:
                            raise _out_of_memory(next(iter(left))) from error
                        seats //= 2
                        for row in left:
                            row.new.clear()

    def _at_work(self, form: Form, waiting: Sequence[Row], loop: DecodeLoop) -> Iterator[Row]:
        """The rows as they finish; those that wait join, in their order, whenever there are seats for some."""
        lengths = [len(row.prompt) for row in waiting]
        joined = 0
        while joined < len(waiting) or loop.rows:
            next_ones = lengths[joined : joined + WINDOW]
            count = form.together(next_ones, self.batch_tokens) if next_ones else 0
            yield from loop.join(waiting[joined : joined + count]) if count else loop.step()
            joined += count

    def _completion(self, ids: list[int], stop_ids: frozenset[int]) -> Completion:
        finished = ids[-1] in stop_ids
        kept = ids[:-1] if finished else ids
        return Completion(tuple(kept), self.renderer.answer_text(kept), finished)


def _bytes_in_slots(
    core: PreTrainedModel, beginning: DynamicCache | None, start: int, rows: Sequence[Row], longest: int
) -> int | None:
    """What a token takes in slots; None where the model's rows must be padded."""
    try:
        refuse_long(core, longest)
    except Unsupported:
        return None
    return exact.bytes_a_token(core, beginning, start, [row.prompt for row in rows])


def _refusal(prompt: Sequence[int], before: int, context: int | None) -> Completion | None:
    if not prompt:
        return Completion((), "", False, refused="the prompt is empty")
    if context is not None and before + len(prompt) >= context:
        virtual_ones = f" and the adapter {before} virtual ones" if before else ""
        reason = f"the prompt has {len(prompt)} tokens{virtual_ones}, the model's context only {context}"
        return Completion((), "", False, refused=reason)
    return None


def _out_of_memory(row: Row) -> ModelError:
    return ModelError(
        f"out of memory on one prompt of {len(row.prompt)} tokens; use a smaller max_new_tokens, a shorter prompt or a "
        "lower precision"
    )


def _pretrained(model: torch.nn.Module) -> PreTrainedModel:
    """The transformers model itself, which a PEFT model carries inside."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(f"{type(model).__name__} holds no transformers model")


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
