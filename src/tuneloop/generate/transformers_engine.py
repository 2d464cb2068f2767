"""Greedy generation by a transformers model in this process; knows token ids only, no messages.

A decode loop of our own, because `generate` keeps finished rows in the batch, pads every row to the longest, and
computes a beginning that all prompts share (system prompt, instruction) once for every prompt instead of once.
Shapes: B rows of a batch, L tokens of the longest prompt, P tokens of the shared beginning, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tuneloop.core.errors import ModelError
from tuneloop.forward import attention, virtual
from tuneloop.generate.engine import Completion, Decoding, Done, Request
from tuneloop.render.rendered import Unrenderable

if TYPE_CHECKING:
    from tuneloop.render.template import Renderer

WASTE = 0.125  # share of padding that a batch may have; the price of fewer, larger batches
FREE = 128  # padded tokens that a batch may have in any case: reading the weights once more costs as much
SHORTEST_SHARED = 8  # a shared beginning below this is not worth its attention mask


class TransformersEngine:
    """Greedy completions, the same as one prompt at a time; batches hold at most `batch_tokens` prompt tokens.

    `model` is a PreTrainedModel or a PEFT model around one; it runs in its own precision on its own device.
    """

    def __init__(
        self, model: torch.nn.Module, renderer: Renderer, identity: str = "", batch_tokens: int = 8_192
    ) -> None:
        self.model, self.renderer, self.identity, self.batch_tokens = model, renderer, identity, batch_tokens

    def answer(self, requests: Sequence[Request], decoding: Decoding, done: Done | None = None) -> list[Completion]:
        """As Engine.answer: prompts by the model's own template, up to its stop tokens."""
        prompts: list[Sequence[int]] = []
        places: list[int] = []
        completions: list[Completion | None] = [None] * len(requests)

        def found(place: int, completion: Completion) -> None:
            completions[place] = completion
            if done is not None:
                done(place, completion)

        for place, request in enumerate(requests):
            try:
                prompts.append(self.renderer.prompt(request.messages, request.tools))
                places.append(place)
            except Unrenderable as error:
                found(place, Completion((), "", False, refused=error.reason))
        self.complete(
            prompts,
            max_new_tokens=decoding.max_new_tokens,
            stop_ids=self.renderer.stop_ids,
            done=lambda row, completion: found(places[row], completion),
        )
        return [completion for completion in completions if completion is not None]

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: Collection[int],
        done: Done | None = None,
    ) -> list[Completion]:
        """One completion a prompt, in order. A prompt that leaves no room in the context is refused with the reason."""
        core = _pretrained(self.model)
        context = getattr(core.config.get_text_config(), "max_position_embeddings", None)
        before = virtual.count(self.model)
        completions: list[Completion | None] = [_refusal(prompt, before, context) for prompt in prompts]
        order = sorted(
            (row for row, refusal in enumerate(completions) if refusal is None), key=lambda row: -len(prompts[row])
        )
        if done is not None:
            for row, refusal in enumerate(completions):
                if refusal is not None:
                    done(row, refusal)
        if order:
            longest = before + len(prompts[order[0]]) + max_new_tokens
            with _generating(self.model, core), torch.inference_mode():
                decoder = _Decoder(self.model, core, context, max_new_tokens, frozenset(stop_ids))
                plain = decoder.plain(longest)
                shared = decoder.read_shared([prompts[row] for row in order]) if plain else decoder.beginning
                start = decoder.read(shared)
                for batch in _batches(order, list(map(len, prompts)), self.batch_tokens, start, plain):
                    for row, ids in self._decode(decoder, batch, prompts, shared):
                        completions[row] = completion = self._completion(ids, decoder.stop_ids)
                        if done is not None:
                            done(row, completion)
        return [completion for completion in completions if completion is not None]

    def _decode(
        self, decoder: _Decoder, batch: list[int], prompts: Sequence[Sequence[int]], shared: DynamicCache | None
    ) -> Iterator[tuple[int, list[int]]]:
        """A batch's (row, new ids) as they finish; where the accelerator's memory does not suffice, half at a time."""
        done: set[int] = set()
        try:
            for place, ids in decoder.decode([prompts[row] for row in batch], shared):
                done.add(batch[place])
                yield batch[place], ids
            return
        except torch.OutOfMemoryError as error:
            left = [row for row in batch if row not in done]
            if len(left) == 1:
                raise ModelError(
                    f"out of memory on one prompt of {len(prompts[left[0]])} tokens; use a smaller max_new_tokens, "
                    "a shorter prompt or a lower precision"
                ) from error
        torch.cuda.empty_cache()
        middle = (len(left) + 1) // 2
        for half in (left[:middle], left[middle:]):
            yield from self._decode(decoder, half, prompts, shared)

    def _completion(self, ids: list[int], stop_ids: frozenset[int]) -> Completion:
        finished = ids[-1] in stop_ids
        kept = ids[:-1] if finished else ids
        return Completion(tuple(kept), self.renderer.answer_text(kept), finished)


class _Decoder:
    """The forward passes of one `complete` call."""

    def __init__(
        self, model: torch.nn.Module, core: PreTrainedModel, context: int | None, limit: int, stop_ids: frozenset[int]
    ) -> None:
        # `core` carries adapters inside its layers; virtual tokens are in the cache that every prompt begins with
        self.core, self.context, self.limit, self.stop_ids = core, context, limit, stop_ids
        takes = inspect.signature(core.forward).parameters
        self.last_only: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        # Mamba swallows past_key_values in silence and then answers each token as if it were the first
        self.cache_name = "cache_params" if "cache_params" in takes else "past_key_values"
        self.virtual, self.beginning = virtual.count(model), virtual.beginning(model, core, self.cache_name)
        self.stop = torch.tensor(sorted(stop_ids), device=core.device)

    def plain(self, longest: int) -> bool:
        """Whether padding and a shared beginning are exact: all layers see all positions, no window, no recurrence."""
        return all(
            type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > longest)
            for layer in DynamicCache(config=self.core.config).layers
        )

    def read(self, cache: DynamicCache | None) -> int:
        """How many tokens of the prompts a cache holds, beside the virtual ones."""
        if cache is None or cache is self.beginning:  # recurrent layers could not tell
            return 0
        return cache.get_seq_length() - self.virtual

    def read_shared(self, prompts: Sequence[Sequence[int]]) -> DynamicCache | None:
        """The keys and values of the beginning that all prompts share, computed once; at least one token stays out."""
        rows = [tuple(prompt) for prompt in prompts]
        first, last = min(rows), max(rows)  # what the first and last in order share, all share
        most = min(map(len, rows)) - 1
        length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
        length = min(length, most)
        if length < SHORTEST_SHARED or len(prompts) < 2:
            return self.beginning
        cache = self._begun(self.beginning)
        self.core(self._tensor([list(first[:length])]), **{self.cache_name: cache}, use_cache=True, **self.last_only)
        return cache

    def decode(self, prompts: list[Sequence[int]], shared: DynamicCache | None) -> Iterator[tuple[int, list[int]]]:
        """(place in `prompts`, new ids) of each row as it finishes; the last id is a stop token or at the limit.

        Rows are padded between the shared beginning and their own part, so that all end at the same place; a row
        leaves the batch when it is finished.
        """
        cache, mask_BL, ids_BL, positions_BL = self._prepare(prompts, shared)
        new: list[list[int]] = [[] for _ in prompts]
        alive = list(range(len(prompts)))
        while alive:
            padded: dict[str, Any] = {} if mask_BL is None else {"attention_mask": mask_BL}
            logits_BLV = self.core(
                ids_BL,
                position_ids=positions_BL,
                **{self.cache_name: cache},
                use_cache=True,
                **padded,
                **self.last_only,
            ).logits
            next_B = logits_BLV[:, -1].argmax(-1)
            stopped = torch.isin(next_B, self.stop).tolist()
            going: list[int] = []
            for at, (place, id) in enumerate(zip(alive, next_B.tolist(), strict=True)):
                new[place].append(id)
                if stopped[at] or len(new[place]) >= self._room(len(prompts[place])):
                    yield place, new[place]
                else:
                    going.append(at)
            ids_BL, positions_BL = next_B[:, None], positions_BL[:, -1:] + 1
            if mask_BL is not None:
                mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(alive), 1)], dim=1)
            if going and len(going) < len(alive):
                keep = torch.tensor(going, device=self.core.device)
                self._select(cache, going)
                ids_BL, positions_BL = ids_BL[keep], positions_BL[keep]
                mask_BL = mask_BL[keep] if mask_BL is not None else None
            alive = [alive[at] for at in going]

    def _prepare(
        self, prompts: list[Sequence[int]], shared: DynamicCache | None
    ) -> tuple[DynamicCache, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """The cache to begin with, the attention mask (None where nothing is padded), ids and positions."""
        start = self.read(shared)
        lengths = [len(prompt) - start for prompt in prompts]
        width = max(lengths)
        ids_BL = self._tensor([[0] * (width - n) + list(p[start:]) for n, p in zip(lengths, prompts, strict=True)])
        first_B1 = self._tensor([[width - n] for n in lengths])
        columns_L = torch.arange(width, device=self.core.device)
        positions_BL = (columns_L - first_B1).clamp(min=0) + self.virtual + start
        cache = self._begun(shared)
        if shared is not None:
            self._select(cache, [0] * len(prompts))
        mask_BL = None
        if min(lengths) < width:
            own_BL = (columns_L >= first_B1).long()
            mask_BL = torch.cat([own_BL.new_ones(len(prompts), self.virtual + start), own_BL], dim=1)
        return cache, mask_BL, ids_BL, positions_BL

    def _begun(self, shared: DynamicCache | None) -> DynamicCache:
        return DynamicCache(config=self.core.config) if shared is None else copy.deepcopy(shared)

    def _room(self, prompt: int) -> int:
        """How many tokens may follow a prompt of that length."""
        return self.limit if self.context is None else min(self.limit, self.context - self.virtual - prompt)

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.core.device)

    def _select(self, cache: DynamicCache, rows: list[int]) -> None:
        """Keeps (or repeats) rows of the cache: an index_select along the batch in every kind of layer."""
        cache.reorder_cache(torch.tensor(rows, dtype=torch.long, device=self.core.device))  # type: ignore[arg-type]


def _batches(order: list[int], lengths: Sequence[int], batch_tokens: int, start: int, padding: bool) -> list[list[int]]:
    """Rows, longest prompt first, cut into batches of at most `batch_tokens` padded tokens.

    The first `start` tokens of all prompts are shared and computed once; padding counts against what is left. A batch
    may have WASTE of it, or FREE tokens, which cost less than the passes of a further batch.
    """
    batches: list[list[int]] = []
    longest = real = 0
    for row in order:
        own = lengths[row] - start
        rows = len(batches[-1]) + 1 if batches else 1
        excess = rows * longest - real - own
        allowed = max(WASTE * rows * longest, FREE) if padding else 0
        if not batches or rows * (start + longest) > batch_tokens or excess > allowed:
            batches.append([])
            longest, real = own, 0
        batches[-1].append(row)
        real += own
    return batches


def _refusal(prompt: Sequence[int], before: int, context: int | None) -> Completion | None:
    if not prompt:
        return Completion((), "", False, refused="the prompt is empty")
    if context is not None and before + len(prompt) >= context:
        virtual_ones = f" and the adapter {before} virtual ones" if before else ""
        reason = f"the prompt has {len(prompt)} tokens{virtual_ones}, the model's context only {context}"
        return Completion((), "", False, refused=reason)
    return None


def _pretrained(model: torch.nn.Module) -> PreTrainedModel:
    """The transformers model itself, which a PEFT model carries inside."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(f"{type(model).__name__} holds no transformers model")


@contextmanager
def _generating(model: torch.nn.Module, core: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode and the model's own attention inside the block (the packed one has no cache)."""
    training = model.training
    model.eval()
    try:
        with attention.standard(core):
            yield
    finally:
        model.train(training)
