"""The fast form of generation: prompts packed without padding, and each row's keys and values in a slot of its own.

Rows join and leave between any two steps. Whatever rows have in common is computed once when they join together.
Serves models whose layers are all attention by transformers' interface; `exact` finds out which are.
Shapes: S slots, B rows in them, T tokens computed, N tokens of all joining rows, L longest row, C places of a slot, K
key/value heads, G query heads for each of them, D head size, V vocabulary.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from tuneloop.core.errors import ModelError
from tuneloop.forward import attention, virtual
from tuneloop.forward.attention import Unsupported, packed_attention, written_out
from tuneloop.forward.layout import Layout
from tuneloop.forward.norms import hasten_norms, own_norms
from tuneloop.forward.objective import logit_finish, trunk_of
from tuneloop.forward.tree import Tree
from tuneloop.generate import lean
from tuneloop.track import console

NAME = "tuneloop_slots"
SPARE = 64
"""Places that a slot gets beyond what is needed now; it grows by a half of its size when they are used."""
WORTH = 2048
"""Prompt tokens for which rows at work are stopped; fewer wait until more seats are free."""
STRETCH = 32
"""Rows whose attention is computed at once on CPU, as far as the longest of them goes."""
HEAD, CHECKED = 96, 4
"""First tokens of how many prompts are computed both ways, to see whether this form is exact."""
Parts = list[tuple[Tensor, Tensor]]
"""Keys [K, L, D] and values of a row's L tokens, layer by layer."""
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Difference of the logits, as a share of their spread, that rounding alone may cause; 0.1 in 16 bits."""
_KNOWN: WeakKeyDictionary[PreTrainedModel, dict[tuple[torch.dtype, bool], int | None]] = WeakKeyDictionary()


class Slots:
    """The rows at work, one a slot, in the slots' order."""

    def __init__(self, core: PreTrainedModel, beginning: DynamicCache | None, start: int, seats: int) -> None:
        """`beginning` holds `start` virtual tokens that stand before each of at most `seats` rows.

        Raises ModelError for a beginning that is not keys and values alone.
        """
        self.core, self.start, self.seats = core, start, seats
        self.prefix = None if beginning is None else virtual.layers_of(beginning)
        self.lengths_B = torch.zeros(0, dtype=torch.long, device=core.device)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._places = 0
        self._resumed: tuple[slice, Tensor, Tensor] | None = None  # the rows; of each token which of them, and where
        self._trunk = lean.trunk(core)
        self._finish = logit_finish(core)

    def __len__(self) -> int:
        return len(self.lengths_B)

    @property
    def bytes_a_token(self) -> int:
        """Memory of one place of one slot; known once rows have joined."""
        both = (part for pair in self._layers.values() for part in pair)
        return sum(part.shape[1] * part.shape[3] * part.element_size() for part in both)

    def together(self, lengths: Sequence[int], most_tokens: int) -> int:
        """How many of the waiting prompts may join now: none while so few fit that it does not pay to stop for them."""
        tokens = list(accumulate(lengths[: self.seats - len(self)]))
        count = bisect_right(tokens, most_tokens)
        if not len(self):
            return max(count, 1)
        return count if count == len(lengths) or (count and tokens[count - 1] >= WORTH) else 0

    def join(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """New rows behind those that are here; the logits [new rows, V] after each."""
        ids = [np.asarray(prompt, np.int64) for prompt in prompts]
        tree = Tree.of(ids)
        lengths = np.array([len(row) for row in ids])
        first = len(self)
        rows_N = np.repeat(np.arange(first, first + len(ids)), lengths)
        within = [np.arange(length) + self.start for length in lengths]
        self._written = tuple(map(self._tensor, (rows_N, np.concatenate(within), np.concatenate(tree.paths))))
        self._joining = slice(first, first + len(ids))
        self._reserve(first + len(ids), self.start + int(lengths.max()) + 1)
        layout = Layout.of(tree).to(self.core.device)
        positions_T = self._tensor(tree.laid_out(within))
        hidden_TH = self._run(self._tensor(tree.laid_out(ids)), positions_T, layout=layout)
        self.lengths_B = torch.cat([self.lengths_B, self._tensor(lengths + self.start)])
        return self._logits(hidden_TH[self._tensor(np.array([path[-1] for path in tree.paths]))])

    def resume(self, rows: Sequence[tuple[Sequence[int], Parts]]) -> Tensor:
        """New rows whose first tokens were computed before: of each its other ids, and the keys and values of those.

        The logits [new rows, V] after the last; the same as `join` of all tokens. Virtual tokens count as known ones.
        """
        first, count_R = len(self), np.array([len(ids) for ids, _ in rows])
        known_R = np.array([known[0][0].shape[1] for _, known in rows])
        longest = int((known_R + count_R).max())
        self._reserve(first + len(rows), longest + 1)
        for layer, both in enumerate(rows[0][1] if not self._layers else ()):
            self._layers[layer] = self._empty(both)
        for row, (_, known) in enumerate(rows, first):
            for (_, both), parts in zip(sorted(self._layers.items()), known, strict=True):
                for held, part in zip(both, parts, strict=True):
                    held[row, :, : part.shape[1]] = part
        row_T = self._tensor(np.repeat(np.arange(len(rows)), count_R))
        new_T = self._tensor(np.concatenate([np.arange(count) for count in count_R]))
        at_RL = self._tensor(known_R)[:, None] + torch.arange(int(count_R.max()), device=self.core.device)
        self._written = first + row_T, at_RL[row_T, new_T], None
        self._see(at_RL, longest)
        self._resumed = slice(first, first + len(rows)), row_T, new_T
        ids_T = self._tensor(np.concatenate([np.asarray(ids, np.int64) for ids, _ in rows]))
        try:
            hidden_TH = self._run(ids_T, self._written[1], layout=None)
        finally:
            self._resumed = None
        self.lengths_B = torch.cat([self.lengths_B, self._tensor(known_R + count_R)])
        return self._logits(hidden_TH[self._tensor(count_R.cumsum() - 1)])

    def parts(self, row: int) -> Parts:
        """Copies of what a row's tokens have left, for `resume`."""
        length = int(self.lengths_B[row])
        return [
            (keys[row, :, :length].clone(), values[row, :, :length].clone())
            for _, (keys, values) in sorted(self._layers.items())
        ]

    def step(self, ids: Sequence[int]) -> Tensor:
        """One more token of each row; the logits [B, V] after it."""
        lengths = [length + 1 for length in self.lengths_B.tolist()]
        longest = max(lengths)
        self._reserve(len(self), longest)
        width = len(self) if self.core.device.type != "cpu" else STRETCH
        ends = [*range(0, len(self), width), len(self)]
        self._stretches = [(slice(start, end), max(lengths[start:end])) for start, end in pairwise(ends)]
        self._written = torch.arange(len(self), device=self.core.device), self.lengths_B, None
        self._see(self.lengths_B[:, None], longest)
        hidden_BH = self._run(torch.tensor(ids, device=self.core.device), self.lengths_B, layout=None)
        self.lengths_B = self.lengths_B + 1
        return self._logits(hidden_BH)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """All other rows leave. The rows that stay, in the order in which they now are: the last ones fill the gaps."""
        stay = [row for row in rows if row < len(rows)]
        gaps = sorted(set(range(len(rows))).difference(stay))
        if gaps:
            to, of = self._tensor(np.array(gaps)), self._tensor(np.array(rows[len(stay) :]))
            longest = int(self.lengths_B[of].max())
            for part in (part for pair in self._layers.values() for part in pair):
                part[to, :, :longest] = part[of, :, :longest]
        placed = dict(zip([*stay, *gaps], rows, strict=True))
        order = [placed[place] for place in range(len(rows))]
        self.lengths_B = self.lengths_B[self._tensor(np.array(order, np.int64))]
        return order

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout | None, **how: Any
    ) -> Tensor:
        """Writes one layer's keys and values to the slots; what the queries [1, H, T, D] read there, [1, T, H, D]."""
        keys, values = self._write(module.layer_idx, key[0].transpose(0, 1), value[0].transpose(0, 1))
        if layout is not None:
            return packed_attention(module, query, key, value, None, layout=layout, prefix=self.prefix, **how)[0]
        if self._resumed is not None:
            return self._read_on(query[0].transpose(0, 1), keys, values, how)
        q_BHD = query[0].transpose(0, 1)
        out = [self._read(q_BHD, keys, values, rows, longest, how) for rows, longest in self._stretches]
        return (out[0] if len(out) == 1 else torch.cat(out)).reshape(1, len(self), query.shape[1], -1)

    def _read(
        self, q_BHD: Tensor, keys: Tensor, values: Tensor, rows: slice, longest: int, how: dict[str, Any]
    ) -> Tensor:
        """What a stretch of rows reads of its places, [rows, H, 1, D] in one shape or another."""
        k, v, q = keys[rows, :, :longest], values[rows, :, :longest], q_BHD[rows]
        mask = self._mask(how.get("sliding_window"))[rows, :, :, :longest]
        scaling, softcap, sinks = how.get("scaling"), how.get("softcap"), how.get("s_aux")
        if softcap is not None or sinks is not None:
            return written_out(q[:, :, None], k, v, scaling, 0.0, mask, softcap, sinks)
        # the query heads of one key/value head as if they were queries: no key is repeated
        q = q.unflatten(1, (k.shape[1], -1))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling).flatten(1, 2)

    def _read_on(self, q_THD: Tensor, keys: Tensor, values: Tensor, how: dict[str, Any]) -> Tensor:
        """[1, T, H, D]: what the new tokens of resumed rows read of known ones and, backwards, of each other."""
        assert self._resumed is not None
        rows, row_T, new_T = self._resumed
        mask = self._mask(how.get("sliding_window"))
        k, v = keys[rows, :, : mask.shape[-1]], values[rows, :, : mask.shape[-1]]
        q_RLHD = q_THD.new_zeros(mask.shape[0], mask.shape[2], *q_THD.shape[1:])
        q_RLHD[row_T, new_T] = q_THD
        q, scaling, softcap, sinks = q_RLHD.transpose(1, 2), how.get("scaling"), how.get("softcap"), how.get("s_aux")
        if softcap is not None or sinks is not None:
            out = written_out(q, k, v, scaling, 0.0, mask, softcap, sinks)
        else:
            grouped = q.shape[1] != k.shape[1]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=grouped)
        return out.transpose(1, 2)[row_T, new_T][None]

    def _run(self, ids_T: Tensor, positions_T: Tensor, layout: Layout | None) -> Tensor:
        """Last hidden states [T, H]."""
        if self._trunk is not None:
            return self._trunk(ids_T, positions_T, self, layout)[0]
        found = trunk_of(self.core)(
            input_ids=ids_T[None], position_ids=positions_T[None], use_cache=False, slots=self, layout=layout
        )
        return found.last_hidden_state[0]

    def _logits(self, hidden_BH: Tensor) -> Tensor:
        head = self.core.get_output_embeddings()
        assert head is not None
        logits_BV = head(hidden_BH)
        return self._finish(logits_BV) if self._finish else logits_BV

    def _write(self, layer: int, keys_TKD: Tensor, values_TKD: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._layers:
            self._layers[layer] = self._empty((keys_TKD.transpose(0, 1), values_TKD.transpose(0, 1)))
        rows_N, places_N, paths_N = self._written
        both = self._layers[layer]
        for held, new_TKD in zip(both, (keys_TKD, values_TKD), strict=True):
            held[rows_N, :, places_N] = new_TKD if paths_N is None else new_TKD[paths_N]
        if paths_N is not None and self.prefix is not None:
            for held, before in zip(both, self.prefix[layer], strict=True):
                held[self._joining, :, : self.start] = before
        return both

    def _empty(self, like: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Room for the keys and values of a layer, such as these [K, L, D]."""
        keys, values = (part.new_zeros(self._slots, part.shape[0], self._places, part.shape[2]) for part in like)
        return keys, values

    def _see(self, at_BL: Tensor, longest: int) -> None:
        """The new tokens of each row stand at these places; later ones are not written yet."""
        self._age_BLC = at_BL[:, :, None] - torch.arange(longest, device=self.core.device)
        self._seen: dict[int | None, Tensor] = {}

    def _mask(self, window: int | None) -> Tensor:
        """[B, 1, L, C]: which places each of a row's L new tokens sees, its own included."""
        if window not in self._seen:
            age = self._age_BLC
            self._seen[window] = ((age >= 0) if window is None else (age >= 0) & (age < window))[:, None]
        return self._seen[window]

    def _reserve(self, slots: int, places: int) -> None:
        """Room for so many rows of that length; new places are zeros, which masked shares of 0 leave finite."""
        if not self._layers:
            self._slots, self._places = slots, places + SPARE
            return
        if slots <= self._slots and places <= self._places:
            return
        if slots > self._slots:
            self._slots = min(max(slots, 2 * self._slots), self.seats)
        if places > self._places:
            self._places = max(places + SPARE, self._places * 3 // 2)
        for layer, pair in self._layers.items():
            wider = tuple(part.new_zeros(self._slots, part.shape[1], self._places, part.shape[3]) for part in pair)
            for new, old in zip(wider, pair, strict=True):
                new[: len(self), :, : old.shape[2]] = old[: len(self)]
            self._layers[layer] = wider  # type: ignore[assignment]  # two of them

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.core.device)


def slot_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    slots: Slots | None = None,
    layout: Layout | None = None,
    **how: Any,
) -> tuple[Tensor, None]:
    """The attention backend; raises Unsupported where a model does not hand `slots` to it or wants a bias."""
    if slots is None or attention_mask is not None or how.get("position_bias") is not None:
        raise Unsupported("the model does not hand the slots to its attention")
    return slots.attend(module, query, key, value, layout, **how), None


@contextmanager
def attending(core: PreTrainedModel) -> Iterator[None]:
    """The model attends by slots inside the block."""
    before = core.config._attn_implementation
    AttentionInterface.register(NAME, slot_attention)
    core.set_attn_implementation(NAME)
    hasten_norms(core)
    try:
        yield
    finally:
        if before == attention.NAME:
            attention.use_packed(core)
        else:
            own_norms(core)
            core.set_attn_implementation(before or "eager")


def exact(
    core: PreTrainedModel, beginning: DynamicCache | None, start: int, prompts: Sequence[Sequence[int]]
) -> int | None:
    """Bytes of memory that a token takes here, or None where this form is not exact for the model; found out once.

    A few prompts are joined without their last token, which comes by a step; the logits must be the model's own.
    """
    known, key = _KNOWN.setdefault(core, {}), (core.dtype, beginning is None)
    if key not in known:
        known[key] = _compared(core, beginning, start, prompts)
    return known[key]


def _compared(
    core: PreTrainedModel, beginning: DynamicCache | None, start: int, prompts: Sequence[Sequence[int]]
) -> int | None:
    sample = [list(prompt[:HEAD]) if len(prompt) > 1 else [*prompt, *prompt] for prompt in prompts[:CHECKED]]
    try:
        with attending(core):
            slots = Slots(core, beginning, start, len(sample))
            slots.join([prompt[:-1] for prompt in sample])
            ours_BV = slots.step([prompt[-1] for prompt in sample]).float()
    except (Unsupported, ModelError, TypeError, ValueError) as error:
        return _said(core, str(error))
    with attention.standard(core):
        own_BV = torch.stack([_own(core, beginning, start, prompt) for prompt in sample]).float()
    spread = (own_BV - own_BV.mean(-1, keepdim=True)).norm()
    gap = ((ours_BV - own_BV).norm() / spread).item()
    if gap <= ROUNDING.get(core.dtype, 0.1) and slots.bytes_a_token:
        return slots.bytes_a_token
    return _said(core, f"its logits differ by {gap:.2g} of their spread")


def _said(core: PreTrainedModel, why: str) -> None:
    console.decided("answers", f"{type(core).__name__}: rows of similar length are padded, without slots ({why})")


def _own(core: PreTrainedModel, beginning: DynamicCache | None, start: int, prompt: list[int]) -> Tensor:
    """The model's own logits [V] after a prompt."""
    ids = torch.tensor([prompt], device=core.device)
    if beginning is None:
        return core(ids, use_cache=False).logits[0, -1]
    positions = torch.arange(len(prompt), device=core.device)[None] + start
    cache = copy.deepcopy(beginning)
    return core(ids, position_ids=positions, past_key_values=cache, use_cache=True).logits[0, -1]
