"""The frozen lower layers of a model, computed once: what they give for each row lies in a file and is served from it.

Knows nothing of training, of methods or of when it pays. No code of the model is changed: while a batch is served,
other modules stand in the places of its lower layers.
Shapes: T tokens of a batch, N of its rows (shared ones several times), C of all rows in the file, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuneloop.forward.batch import Batch, Row, everywhere, real_positions
from tuneloop.forward.objective import Objective, core_of
from tuneloop.models.blocks import blocks_of


class _Standing(nn.Module):
    """In the place of a layer: gives what is told, or hands on what it gets, in the form that the layer returns."""

    def __init__(self, layer: nn.Module, values: int | None) -> None:
        super().__init__()
        self.layer, self.values = layer, values
        self.told: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """Models ask their layers for facts, such as the kind of attention."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        hidden = self.told
        if hidden is None:
            hidden = inputs[0] if inputs else named["hidden_states"]
        return hidden if self.values is None else (hidden, *[None] * (self.values - 1))


class Trunk:
    """The layers below `border` of an Objective's model, none of which changes or draws a random number."""

    def __init__(self, objective: Objective, border: int, values: Sequence[int | None], hidden: Tensor) -> None:
        """`values`: how many values each layer returns, None for a bare tensor; `hidden`: what the trunk gave once."""
        self.border, self.width, self.dtype = border, hidden.shape[-1], hidden.dtype
        self.fingerprint = hashlib.sha256(_bytes(hidden)).hexdigest()
        """Of the hidden states of the rows that it was found by: other weights or kernels give another one."""
        self.layers = blocks_of(core_of(objective.model))[1]
        self._own: list[nn.Module] = list(self.layers)
        self._standing = [_Standing(layer, count) for layer, count in zip(self._own, values, strict=True)]
        self.rows: Sequence[Row] = ()
        """Those of the file."""
        self._batches: list[list[int]] = []
        self._starts: dict[bytes, int] = {}
        self._hidden_CD: Tensor | None = None
        self.tokens = 0
        """C."""

    @property
    def bytes_a_token(self) -> int:
        """In the file."""
        return self.width * self.dtype.itemsize

    def below(self) -> set[int]:
        """Ids of all modules below the border."""
        return {id(module) for layer in self._own[: self.border] for module in layer.modules()}

    def arrange(self, objective: Objective, rows: Sequence[Row], budget: int) -> None:
        """Lays down which rows the file has, and in which batches it is computed: the same again in a resumed run."""
        self.rows, self._batches = rows, objective.micro_batches(rows, range(len(rows)), budget)
        self._starts, self.tokens = {}, 0
        for place in (place for picked in self._batches for place in picked):
            self._starts[key(rows[place])] = self.tokens
            self.tokens += len(rows[place].ids)

    def fill(
        self, objective: Objective, path: Path, pad_id: int, advance: Callable[[int], object] = lambda _: None
    ) -> None:
        """Computes and writes the file. Written and not mapped: a full disk is then an OSError, not the end."""
        was_training = objective.training
        objective.eval()
        with torch.inference_mode(), path.open("wb") as file:
            for picked in self._batches:
                batch = objective.batch([self.rows[place] for place in picked], pad_id)
                hidden_ND = self._computed(objective, batch).index_select(0, everywhere(batch).keep_N)
                file.write(_bytes(hidden_ND))
                advance(len(picked))
        objective.train(was_training)

    def _computed(self, objective: Objective, batch: Batch) -> Tensor:
        """What the trunk gives for a batch, flat; the layers above it do not run."""
        seen: list[Tensor] = []
        handle = self._own[self.border - 1].register_forward_hook(lambda *args: seen.append(_hidden(args[-1])))
        try:
            with self._replaced(range(self.border, len(self._own)), None):
                objective.side(batch)
        finally:
            handle.remove()
        return seen[0].reshape(-1, self.width)

    def open(self, path: Path) -> None:
        """From now on batches of these rows are served from the file."""
        flat = torch.from_file(str(path), shared=False, size=self.tokens * self.width, dtype=self.dtype)
        self._hidden_CD = flat.view(self.tokens, self.width)

    @contextmanager
    def serving(self, batch: Batch) -> Iterator[None]:
        """Within it the model's lower layers do not run for this batch, if all its rows are known."""
        hidden = self._found(batch)
        if hidden is None:
            yield
            return
        with self._replaced(range(self.border), hidden):
            yield

    def _found(self, batch: Batch) -> Tensor | None:
        starts_R = [self._starts.get(key(row), -1) for row in batch.source]
        if self._hidden_CD is None or not starts_R or min(starts_R) < 0:
            return None
        real_T, rows_T = (places.cpu() for places in real_positions(batch))
        positions_T = batch.positions.flatten().cpu().index_select(0, real_T)
        from_T = torch.tensor(starts_R).index_select(0, rows_T) + positions_T
        hidden_TD = self._hidden_CD.index_select(0, from_T)
        if len(real_T) < batch.ids.numel():
            hidden_TD = hidden_TD.new_zeros(batch.ids.numel(), self.width).index_copy_(0, real_T, hidden_TD)
        return hidden_TD.to(batch.ids.device).view(*batch.ids.shape, self.width)

    @contextmanager
    def _replaced(self, places: range, told: Tensor | None) -> Iterator[None]:
        try:
            for place in places:
                self._standing[place].told = told
                self.layers[place] = self._standing[place]
            yield
        finally:
            for place in places:
                self._standing[place].told = None
                self.layers[place] = self._own[place]


def key(row: Row) -> bytes:
    """What a row is known by: its tokens."""
    return hashlib.blake2b(row.ids.astype(np.int32).tobytes(), digest_size=16).digest()


def find(objective: Objective, rows: Sequence[Row], *, pad_id: int, neftune: float = 0.0) -> tuple[Trunk | None, str]:
    """The largest frozen trunk of a model ready to be trained, or None and why there is none.

    Tried on a few rows in training mode: a layer belongs to it when what it gives has no gradient and no random number
    was drawn before (dropout, noise). That covers whatever may be trained: embeddings, virtual tokens, parts of layers.
    """
    core = core_of(objective.model)
    layers = blocks_of(core)[1]
    if any(parameter.requires_grad for parameter in layers[0].parameters()):
        return None, "its lowest layer is trained"
    device = next(objective.parameters()).device
    given: list[Any] = []
    states: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: Any, output: Any) -> None:
        given.append(output)
        states.append(_random_state(device))

    handles = [layer.register_forward_hook(watch) for layer in layers]
    was_training = objective.training
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            before = _random_state(device)
            objective.train().side(objective.batch(rows, pad_id), neftune)
    finally:
        objective.train(was_training)
        for handle in handles:
            handle.remove()
    if len(given) != len(layers):
        return None, "its layers do not run once each, one after the other"
    frozen = _leading(not _hidden(output).requires_grad for output in given)
    border = min(frozen, _leading(torch.equal(state, before) for state in states))
    if border == 0:
        return None, "noise or dropout acts below them" if frozen else "what is below its layers is trained"
    values = [len(output) if isinstance(output, tuple) else None for output in given]
    return Trunk(objective, border, values, _hidden(given[border - 1]).detach()), ""


def _leading(flags: Iterator[bool]) -> int:
    count = 0
    for flag in flags:
        if not flag:
            break
        count += 1
    return count


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _bytes(hidden: Tensor) -> bytes:
    return hidden.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
