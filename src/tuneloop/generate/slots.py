"""The fast form of generation: prompts packed without padding, and each row's keys and values in a slot of its own.

Rows join and leave between any two steps. Whatever rows have in common is computed once when they join together.
Serves models whose layers are all attention by transformers' interface; `exact` finds out which are.
Shapes: S slots, B rows in them, T tokens computed, N tokens of all joining rows, L longest row, C places of a slot, H
query heads, K key/value heads, D head size, W keys and values of a token (one layer's), V vocabulary.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from tuneloop.forward import attention, virtual
from tuneloop.forward.attention import Unsupported, packed_attention, written_out
from tuneloop.forward.hasten import hasten_norms, own_forms
from tuneloop.forward.layout import Layout
from tuneloop.forward.objective import logit_finish, trunk_of
from tuneloop.forward.ragged import Asked
from tuneloop.forward.tree import Tree
from tuneloop.generate import compiled, lean

NAME = "tuneloop_slots"
SPARE = 64
"""Places that a slot gets beyond what is needed now; it grows by a half of its size when they are used."""
WORTH = 2048
"""Prompt tokens for which rows at work are stopped; fewer wait until more seats are free."""
STRETCH = 32
"""Rows whose attention is computed at once on CPU, as far as the longest of them goes."""
FEW = 16
"""New tokens of a row up to which each reads its keys and values by itself; more do it together."""
Parts = list[Tensor]
"""What a row's L tokens left, layer by layer [L, W]: each one's keys, then its values."""


class Slots:
    """The rows at work, one a slot, in the slots' order."""

    def __init__(self, core: PreTrainedModel, beginning: DynamicCache | None, start: int, seats: int) -> None:
        """`beginning` holds `start` virtual tokens that stand before each of at most `seats` rows.

        Raises ModelError for a beginning that is not keys and values alone.
        """
        self.core, self.start, self.seats = core, start, seats
        self._prefix = None if beginning is None else virtual.layers_of(beginning)
        self._before = [_in_rows(*pair) for pair in self._prefix or ()]
        self.lengths_B = torch.zeros(0, dtype=torch.long, device=core.device)
        self._layers: dict[int, Tensor] = {}  # [S, C, W]
        self._places = 0
        self._paths_N: Tensor | None = None
        self._resumed: tuple[slice, Tensor, Tensor] | None = None  # the rows; of each token which of them, and where
        self._at: tuple[Tensor, Tensor] | None = None  # slot and place of each new token, where each reads by itself
        self._trunk = lean.trunk(core)
        self._finish = logit_finish(core)

    def __len__(self) -> int:
        return len(self.lengths_B)

    @property
    def bytes_a_token(self) -> int:
        """Memory of one place of one slot; known once rows have joined."""
        return sum(held.shape[2] * held.element_size() for held in self._layers.values())

    def together(self, lengths: Sequence[int], most_tokens: int) -> int:
        """How many of the waiting prompts may join now: none while so few fit that it does not pay to stop for them."""
        tokens = list(accumulate(lengths[: self.seats - len(self)]))
        count = bisect_right(tokens, most_tokens)
        if not len(self):
            return max(count, 1)
        return count if count == len(lengths) or (count and tokens[count - 1] >= WORTH) else 0

    def uncompiled(self) -> str | None:
        """Why steps on this CPU go by PyTorch's operations alone, where they could be compiled."""
        if self._trunk is None or self.core.device.type != "cpu":
            return None
        found = compiled.kernels(compiled.Heads(*self._trunk.heads, self.core.dtype))
        return found if isinstance(found, str) else None

    def join(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """New rows behind those that are here; the logits [new rows, V] after each."""
        ids = [np.asarray(prompt, np.int64) for prompt in prompts]
        tree = Tree.of(ids)
        lengths = np.array([len(row) for row in ids])
        first = len(self)
        rows_N = np.repeat(np.arange(first, first + len(ids)), lengths)
        within = [np.arange(length) + self.start for length in lengths]
        self._joining = slice(first, first + len(ids))
        self._reserve(first + len(ids), self.start + int(lengths.max()) + 1)
        self._written_N = self._tensor(rows_N * self._places + np.concatenate(within))
        self._paths_N = self._tensor(np.concatenate(tree.paths))
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
        known_R = np.array([len(known[0]) for _, known in rows])
        self._reserve(first + len(rows), int((known_R + count_R).max()) + 1)
        for row, (_, known) in enumerate(rows, first):
            for layer, part in enumerate(known):
                self.held(layer, part)[row, : len(part)] = part
        hidden_TH = self._go_on(slice(first, first + len(rows)), [ids for ids, _ in rows], known_R)
        self.lengths_B = torch.cat([self.lengths_B, self._tensor(known_R + count_R)])
        return self._logits(hidden_TH[self._tensor(count_R.cumsum() - 1)])

    def several(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Some more tokens of each row, one at least; the logits [T, V] after each, row by row.

        `shorten` takes back those that prove wrong.
        """
        count_B, known_B = np.array([len(ids) for ids in rows]), self.lengths_B.numpy(force=True)
        self._reserve(len(self), int((known_B + count_B).max()))
        hidden_TH = self._go_on(slice(0, len(self)), rows, known_B)
        self.lengths_B = self.lengths_B + self._tensor(count_B)
        return self._logits(hidden_TH)

    def shorten(self, by: Sequence[int]) -> None:
        """Each row forgets so many of its last tokens."""
        self.lengths_B = self.lengths_B - self._tensor(np.array(by))

    def _go_on(self, rows: slice, ids: Sequence[Sequence[int]], known_R: np.ndarray) -> Tensor:
        """Last hidden states [T, H] of tokens that follow the known ones of these rows, row by row."""
        count_R = np.array([len(one) for one in ids])
        row_T = self._tensor(np.repeat(np.arange(len(ids)), count_R))
        new_T = self._tensor(np.concatenate([np.arange(count) for count in count_R]))
        at_RL = self._tensor(known_R)[:, None] + torch.arange(int(count_R.max()), device=self.core.device)
        at_T = at_RL[row_T, new_T]
        self._written_N, self._paths_N = (rows.start + row_T) * self._places + at_T, None
        self._see(at_RL, int((known_R + count_R).max()))
        self._resumed = rows, row_T, new_T
        self._at = (rows.start + row_T, at_T) if count_R.max() <= FEW else None
        try:
            return self._run(
                self._tensor(np.concatenate([np.asarray(one, np.int64) for one in ids])), at_T, layout=None
            )
        finally:
            self._resumed = self._at = None

    def parts(self, row: int) -> Parts:
        """Copies of what a row's tokens have left, for `resume`."""
        length = int(self.lengths_B[row])
        return [held[row, :length].clone() for _, held in sorted(self._layers.items())]

    def step(self, ids: Sequence[int]) -> Tensor:
        """One more token of each row; the logits [B, V] after it."""
        lengths = [length + 1 for length in self.lengths_B.tolist()]
        self._reserve(len(self), max(lengths))
        width = len(self) if self.core.device.type != "cpu" else STRETCH
        ends = [*range(0, len(self), width), len(self)]
        self._stretches = [(slice(start, end), max(lengths[start:end])) for start, end in pairwise(ends)]
        row_B = torch.arange(len(self), device=self.core.device)
        self._written_N, self._paths_N = row_B * self._places + self.lengths_B, None
        self._see(self.lengths_B[:, None], max(lengths))
        self._at = row_B, self.lengths_B
        try:
            hidden_BH = self._run(torch.tensor(ids, device=self.core.device), self.lengths_B, layout=None)
        finally:
            self._at = None
        self.lengths_B = self.lengths_B + 1
        return self._logits(hidden_BH)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """All other rows leave. The rows that stay, in the order in which they now are: the last ones fill the gaps."""
        stay = [row for row in rows if row < len(rows)]
        gaps = sorted(set(range(len(rows))).difference(stay))
        if gaps:
            to, of = self._tensor(np.array(gaps)), self._tensor(np.array(rows[len(stay) :]))
            longest = int(self.lengths_B[of].max())
            for held in self._layers.values():
                held[to, :longest] = held[of, :longest]
        placed = dict(zip([*stay, *gaps], rows, strict=True))
        order = [placed[place] for place in range(len(rows))]
        self.lengths_B = self.lengths_B[self._tensor(np.array(order, np.int64))]
        return order

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout | None, **how: Any
    ) -> Tensor:
        """Writes one layer's keys and values [1, K, T, D] to the slots; what the queries read there, [1, T, H, D]."""
        layer, kv_TW = module.layer_idx, _in_rows(key, value)
        if layout is None:
            return self.exchange(layer, query[0].transpose(0, 1), kv_TW, key.shape[1], **how)[None]
        self._write(layer, kv_TW)
        return packed_attention(module, query, key, value, None, layout=layout, prefix=self._prefix, **how)[0]

    def exchange(self, layer: int, q_THD: Tensor, kv_TW: Tensor, heads: int, **how: Any) -> Tensor:
        """`attend` for tokens that go on: writes their keys and values (of so many heads each), reads [T, H, D]."""
        size = q_THD.shape[2]
        fused = how.get("softcap") is None and how.get("s_aux") is None
        if fused and self._at is not None and kv_TW.shape[1] == 2 * heads * size:
            kernels = compiled.kernels_for(q_THD, q_THD.shape[1], heads, size)
            if kernels is not None:
                scaling = how.get("scaling") or size**-0.5
                return kernels.attend(
                    q_THD, kv_TW, None, self.held(layer, kv_TW), self._at, how.get("sliding_window"), scaling
                ).view(q_THD.shape)
        self._write(layer, kv_TW)
        held = self._layers[layer]
        mask = self._mask(how.get("sliding_window"), q_THD.dtype if fused else torch.bool)
        if self._resumed is not None:
            rows, row_T, new_T = self._resumed
            q_RLHD = q_THD.new_zeros(mask.shape[0], mask.shape[2], *q_THD.shape[1:])
            q_RLHD[row_T, new_T] = q_THD
            k, v = _keys_values(held, rows, mask.shape[3], heads, size)
            return _read(q_RLHD.transpose(1, 2), k, v, mask, **how).transpose(1, 2)[row_T, new_T]
        out = []
        for rows, longest in self._stretches:
            k, v = _keys_values(held, rows, longest, heads, size)
            # the query heads of one key/value head as if they were queries: no key is repeated
            q = q_THD[rows].unflatten(1, (heads, -1)) if fused else q_THD[rows, :, None]
            out.append(_read(q, k, v, mask[rows, :, :, :longest], **how).reshape(len(q), q_THD.shape[1], -1))
        return out[0] if len(out) == 1 else torch.cat(out)

    def _run(self, ids_T: Tensor, positions_T: Tensor, layout: Layout | None) -> Tensor:
        """Last hidden states [T, H]."""
        if self._trunk is not None:
            if self._at is not None:
                kernels = compiled.kernels_for(self._layers[0], *self._trunk.heads)
                if kernels is not None:
                    return self._trunk.step(ids_T, self._at, self, kernels)
            return self._trunk.run(ids_T, positions_T, self, layout)
        found = trunk_of(self.core)(
            input_ids=ids_T[None], position_ids=positions_T[None], use_cache=False, slots=self, layout=layout
        )
        return found.last_hidden_state[0]

    def _logits(self, hidden_BH: Tensor) -> Tensor:
        head = self.core.get_output_embeddings()
        assert head is not None
        logits_BV = head(hidden_BH)
        return self._finish(logits_BV) if self._finish else logits_BV

    def _write(self, layer: int, kv_TW: Tensor) -> None:
        held = self.held(layer, kv_TW)
        held.view(-1, held.shape[2]).index_copy_(
            0, self._written_N, kv_TW if self._paths_N is None else kv_TW[self._paths_N]
        )
        if self._paths_N is not None and self._before:
            held[self._joining, : self.start] = self._before[layer]

    def held(self, layer: int, like: Tensor) -> Tensor:
        """A layer's keys and values [S, C, W]; like[..., W]."""
        if layer not in self._layers:
            self._layers[layer] = like.new_zeros(self._slots, self._places, like.shape[-1])
        return self._layers[layer]

    def _see(self, at_BL: Tensor, longest: int) -> None:
        """The new tokens of each row stand at these places; later ones are not written yet."""
        self._age_BLC = at_BL[:, :, None] - torch.arange(longest, device=self.core.device)
        self._seen: dict[tuple[int | None, torch.dtype], Tensor] = {}

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[B, 1, L, C]: which places each of a row's L new tokens sees, its own included; as bool, or as 0 and -inf."""
        if (window, dtype) not in self._seen:
            age = self._age_BLC
            seen = ((age >= 0) if window is None else (age >= 0) & (age < window))[:, None]
            if dtype is not torch.bool:
                seen = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))
            self._seen[window, dtype] = seen
        return self._seen[window, dtype]

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
        for layer, held in self._layers.items():
            wider = held.new_zeros(self._slots, self._places, held.shape[2])
            wider[: len(self), : held.shape[1]] = held[: len(self)]
            self._layers[layer] = wider

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.core.device)


def _in_rows(keys: Tensor, values: Tensor) -> Tensor:
    """Keys and values [1, K, T, D] as a slot holds them, [T, W]."""
    return torch.cat([part[0].transpose(0, 1).flatten(1) for part in (keys, values)], 1)


def _keys_values(held_SCW: Tensor, rows: slice, longest: int, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """Views of keys and values [B, K, L, D] of some rows' first places; `size` of a key, a value may have another."""
    _, places, width = held_SCW.shape
    other, begin = width // heads - size, rows.start * places * width
    shape, strides = (rows.stop - rows.start, heads, longest), (places * width, width, 1)
    keys = held_SCW.as_strided((*shape, size), (strides[0], size, *strides[1:]), begin)
    values = held_SCW.as_strided((*shape, other), (strides[0], other, *strides[1:]), begin + heads * size)
    return keys, values


def _read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_others: Any,
) -> Tensor:
    """Queries [B, H, L, D] of keys and values [B, K, C, D] where the mask [B, 1, L, C] lets them, [B, H, L, D].

    A mask of bools is for scores that no fused kernel computes.
    """
    if mask.dtype is torch.bool:
        return written_out(q, k, v, mask, Asked(scaling, softcap=softcap, sinks_H=s_aux))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=q.shape[1] != k.shape[1])


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
        if before in attention.WAYS:
            attention.use_packed(core, before)
        else:
            own_forms(core)
            core.set_attn_implementation(before or "eager")
