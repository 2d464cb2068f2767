"""A model and a Batch → the weighted loss sum and the nll of each scored position.

`Objective` is a module, so that DDP and FSDP wrap it and see the forward pass. `nll` scores rows without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tuneloop.core.errors import ModelError
from tuneloop.forward import virtual
from tuneloop.forward.attention import Unsupported, use_packed, use_standard
from tuneloop.forward.batch import Batch, Row, collate
from tuneloop.forward.divergence import Side
from tuneloop.forward.kernels import why_none
from tuneloop.forward.loss import chunked_nll
from tuneloop.forward.noise import noisy_embeddings
from tuneloop.forward.plan import micro_batches
from tuneloop.forward.tree import FLOOR
from tuneloop.render.flat import lengths_of

if TYPE_CHECKING:
    from tuneloop.forward.trunk import Trunk

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.03}
"""Mean difference in nats that rounding alone may cause between two correct ways to compute the same loss."""
LEAK = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
"""The same for one row of which only the neighbour in the pack has changed: here the ways to compute are the same."""


def core_of(model: Any) -> PreTrainedModel:
    """The transformers model inside an adapter model (or the model itself)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trunk_of(core: PreTrainedModel) -> nn.Module:
    """The model below the head: token ids to last hidden states."""
    trunk = getattr(core, core.base_model_prefix, None)
    return core.model if trunk is None else trunk  # Llama 4's text model names another prefix than it has


def checkpoint_activations(model: Any) -> None:
    """Recompute activations in the backward pass."""
    core = core_of(model)
    core.activation_checkpointing_enable({"use_reentrant": False})
    # only reentrant checkpoints need inputs with gradients; here they would take frozen lower layers into the backward
    core.disable_input_require_grads()


def logit_finish(model: PreTrainedModel) -> Callable[[Tensor], Tensor] | None:
    """What an architecture does to its logits after the head: Gemma's cap, the scales of Cohere, Granite, Falcon-H1."""
    config = model.config
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return lambda logits: cap * torch.tanh(logits / cap)
    scale = getattr(config, "logit_scale", None)
    if scale:
        return lambda logits: logits * scale
    divisor = getattr(config, "logits_scaling", None)
    if divisor:
        return lambda logits: logits / divisor
    multiplier = getattr(config, "lm_head_multiplier", None)
    if multiplier:
        return lambda logits: logits * multiplier
    return None


class Objective(nn.Module):
    """Forward pass of a causal language model to its supervised loss. `prepare` decides on `packed` and `share`."""

    def __init__(self, model: nn.Module, *, packed: bool, share: bool = False) -> None:
        super().__init__()
        self.model, self.packed, self.share = model, packed, share
        self.trunk: Trunk | None = None
        """What is known already of frozen lower layers; rows that it does not know run through all layers."""

    def batch(self, rows: Sequence[Row], pad_id: int) -> Batch:
        """The rows in the form that this model takes, on its device."""
        device = next(self.parameters()).device
        return collate(rows, packed=self.packed, pad_id=pad_id, share=self.share).to(device)

    def micro_batches(self, rows: Sequence[Row], picked: Sequence[int], budget: int) -> list[list[int]]:
        """`picked` of the rows, divided into batches of at most `budget` tokens."""
        ids = [row.ids for row in rows] if self.share else None
        return micro_batches(self.costs(rows), picked, budget, packed=self.packed, ids=ids)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum over scored positions of weight · nll, nll_N)."""
        side = self.side(batch)
        return chunked_nll(side.hidden_ND, side.head, batch.targets_N, batch.weights_N, side.finish)

    def costs(self, rows: Sequence[Row]) -> list[int]:
        """What each row takes of a token budget: its tokens, and the virtual ones that run before it."""
        before = virtual.in_layers(self.model)
        return [length + before for length in lengths_of(rows)]

    @contextmanager
    def through_all_layers(self) -> Iterator[None]:
        """Within it nothing is taken from the trunk's file."""
        trunk, self.trunk = self.trunk, None
        try:
            yield
        finally:
            self.trunk = trunk

    def side(self, batch: Batch, neftune: float = 0.0) -> Side:
        """Hidden states of the scored positions, and what makes logits of them.

        `neftune` is the alpha of noise on the embeddings, which only a model in training mode gets.
        """
        core = core_of(self.model)
        noisy = neftune > 0 and self.training
        served = self.trunk.serving(batch) if self.trunk else nullcontext()
        with noisy_embeddings(core, batch, neftune) if noisy else nullcontext(), served:
            inputs, keep_N = virtual.inputs(self.model, core, batch)
            hidden = trunk_of(core)(**inputs, use_cache=False).last_hidden_state
        head = core.get_output_embeddings()
        assert head is not None
        return Side(hidden.reshape(-1, hidden.shape[-1]).index_select(0, keep_N), head, logit_finish(core))


def prepare(model: nn.Module, sample: Sequence[Row], pad_id: int) -> tuple[Objective, str]:
    """An Objective in the fastest form that is exact for this model, and the decision in words.

    Packed rows are compared with the model's own padded forward and its own logits on a few real rows. An architecture
    that mixes packed rows (state-space layers, own masks) is found out here and runs padded, grouped by length.
    """
    core = core_of(model)
    virtual.check_room(model, core, sample)
    use_standard(core)
    rows = [_head_of(row) for row in sample[:4]]
    reference_N = _own_nll(model, rows)
    tolerance = TOLERANCE[core.dtype]
    packed = Objective(model, packed=True)
    try:
        refuse_long(core, virtual.count(model) + max(lengths_of(sample)))
        use_packed(core)
        gap = max(_gap(packed, rows, pad_id, reference_N), tolerance * _leak(packed, rows) / LEAK[core.dtype])
    except (Unsupported, TypeError, ValueError) as error:
        gap, reason = float("inf"), str(error)
    else:
        reason = f"{_why_rows_mix(core)}: packed rows differ from the model's own forward pass by {gap:.2g} nats"
    if gap <= tolerance:
        refused = _why_not_shared(packed, sample)
        packed.share = not refused
        words = f"rows are packed without padding (checked against the model's own forward: Δ {gap:.1e} nats)"
        words = f"{words}; {refused or 'first tokens that rows have in common are computed once'}"
        uncompiled = why_none(next(core.parameters()))
        return packed, f"{words}; slower than it could be: {uncompiled}" if uncompiled else words
    use_standard(core)
    padded = Objective(model, packed=False)
    gap = _gap(padded, rows, pad_id, reference_N)
    if not gap <= tolerance:
        raise ModelError(
            f"{type(core).__name__} does something to its logits that tuneloop does not know: its own loss differs by "
            f"{gap:.2g} nats from the one computed here. Take another base, or report this architecture."
        )
    return padded, f"rows are padded, grouped by length ({reason})"


def _why_not_shared(objective: Objective, sample: Sequence[Row]) -> str:
    """Why common first tokens must be computed in every row; empty where they need not be."""
    if virtual.count(objective.model):
        return "virtual tokens stand before each row, so common first tokens are computed in each"
    ids = np.resize(sample[0].ids, 3 * FLOOR)
    if getattr(core_of(objective.model).config.get_text_config(), "max_position_embeddings", len(ids)) < len(ids):
        return "rows are too short to share their first tokens"
    rows = [_Scored(row) for row in (ids, np.concatenate([ids[: 2 * FLOOR], ids[:FLOOR][::-1]]), ids[: 2 * FLOOR])]
    own_N, shared_N = (
        _scores(Objective(objective.model, packed=True, share=share), rows, 0) for share in (False, True)
    )
    gap = float((own_N - shared_N).abs().mean())
    if not gap <= TOLERANCE[core_of(objective.model).dtype]:
        return f"common first tokens are computed in each row (shared, they differ by {gap:.2g} nats)"
    return "" if _is_repeatable(objective, rows) else "with dropout, common first tokens are computed in each row"


def _is_repeatable(objective: Objective, rows: Sequence[Row]) -> bool:
    """Whether nothing is drawn at random in a forward pass in training, now and later on."""
    # a fresh adapter gives nothing yet, dropped out or not
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in objective.modules()):
        return False
    device = next(objective.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        batch = objective.train().batch(rows, 0)
        one_N, other_N = (objective(batch)[1] for _ in range(2))
    objective.eval()
    return bool(torch.equal(one_N, other_N))


def refuse_long(core: PreTrainedModel, longest: int) -> None:
    """Raises Unsupported for what shows only in longer rows and batches than those compared."""
    text = core.config.get_text_config()
    if getattr(text, "attn_temperature_tuning", False):  # Llama 4 counts without looking at position_ids
        raise Unsupported("its attention scales queries by their place in the whole batch")
    chunk = getattr(text, "attention_chunk_size", None)
    if chunk and longest > chunk:
        raise Unsupported(f"its attention works in chunks of {chunk} tokens, and rows are longer")


def _why_rows_mix(core: PreTrainedModel) -> str:
    """The likeliest cause, from what an architecture says about itself."""
    kinds = getattr(core.config.get_text_config(), "layer_types", None) or ()
    if core._is_stateful or any("attention" not in kind or "linear" in kind for kind in kinds):
        return "recurrent or convolution layers carry one row into the next"
    if not core._supports_attention_backend:
        return "its attention is built in and sees one long row"
    return "its layers do not keep rows apart"


def nll(
    objective: Objective,
    rows: Sequence[Row],
    *,
    pad_id: int,
    budget: int,
    advance: Callable[[int], object] = lambda _: None,
) -> list[tuple[float, float]]:
    """(sum of weight · nll, sum of weights) of each row, in nats, in the rows' order. Batches hold `budget` tokens."""
    out: list[tuple[float, float]] = [(0.0, 0.0)] * len(rows)
    was_training = objective.training
    objective.eval()
    with torch.inference_mode():
        for picked in objective.micro_batches(rows, range(len(rows)), budget):
            batch = objective.batch([rows[i] for i in picked], pad_id)
            _, nll_N = objective(batch)
            weights_N = batch.weights_N.double()
            sums = torch.zeros(2, len(picked), dtype=torch.float64, device=nll_N.device)
            sums[0].index_add_(0, batch.rows_N, nll_N.double() * weights_N)
            sums[1].index_add_(0, batch.rows_N, weights_N)
            for i, total, weight in zip(picked, *sums.tolist(), strict=True):
                out[i] = (total, weight)
            advance(len(picked))
    objective.train(was_training)
    return out


def mean_nll(objective: Objective, rows: Sequence[Row], *, pad_id: int, budget: int) -> float:
    """Token-weighted mean over all rows: the validation loss, in nats."""
    scores = nll(objective, rows, pad_id=pad_id, budget=budget)
    return sum(total for total, _ in scores) / sum(weight for _, weight in scores)


class _Scored:
    """A row cut short with every position scored, for the self-check."""

    def __init__(self, ids: Any) -> None:
        self.ids = ids
        self.weights = (ids * 0 + 1).astype("float32")


def _head_of(row: Row) -> _Scored:
    return _Scored(row.ids[:96])


def _own_nll(model: nn.Module, rows: Sequence[Row]) -> Tensor:
    """Per-position nll from the model's own logits, row by row: no packing, no padding, no code of ours."""
    device = next(model.parameters()).device
    parts = []
    model.eval()
    with torch.inference_mode():
        for row in rows:
            ids = torch.as_tensor(row.ids.astype("int64"), device=device)[None]
            logits = model(input_ids=ids, use_cache=False).logits[0, -len(row.ids) : -1]  # after virtual tokens
            parts.append(nn.functional.cross_entropy(logits.double(), ids[0, 1:], reduction="none"))
    return torch.cat(parts)


def _leak(objective: Objective, rows: Sequence[Row]) -> float:
    """How much a row's nll changes, on average, when the row packed before it gets other tokens."""
    last, before = rows[-1], rows[0].ids
    nll = [_scores(objective, [_Scored(ids), last], 0)[len(before) - 1 :] for ids in (before, before[::-1].copy())]
    return float((nll[0] - nll[1]).abs().mean())


def _gap(objective: Objective, rows: Sequence[Row], pad_id: int, reference_N: Tensor) -> float:
    return float((_scores(objective, rows, pad_id) - reference_N).abs().mean())


def _scores(objective: Objective, rows: Sequence[Row], pad_id: int) -> Tensor:
    objective.eval()
    with torch.inference_mode():
        _, nll_N = objective(objective.batch(rows, pad_id))
    return nll_N.double()
