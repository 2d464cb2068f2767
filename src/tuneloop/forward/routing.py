"""Which experts a model's routers choose: the load-balancing loss of a training step, and the load itself.

Watches the routers while another forward pass runs; knows nothing of the supervised loss, of optimizers or of files.
Shapes: L routers, E experts, k experts a token, T real tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tuneloop.forward import virtual
from tuneloop.forward.batch import Batch
from tuneloop.models.targets import Router, routers


class Routing:
    """The routers of a model, and how a step's tokens are divided among its experts.

    The loss is that of Switch Transformer (arXiv 2101.03961, equations 4 to 6) for k experts a token, as a mean over
    layers: E · Σ_e f_e · P_e, with f_e the tokens that expert e gets ÷ T and P_e the mean of its softmax probability;
    evenly loaded it is k. f and P are those of the whole optimizer step (the "global batch" of arXiv 2501.11873), over
    all micro-batches and processes and without padding. f has no gradient, so once it is known the rest is a sum over
    tokens and does not depend on how they are divided: `look_ahead` runs a step's batches once without gradient to
    know it. A step of a single batch does without.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.routers = list(routers(model).values())
        self.names = [name.removeprefix("base_model.model.") for name in routers(model)]
        self.averaged = len(self.routers)
        """Routers over which the loss is a mean."""
        device = next(model.parameters()).device
        shape = len(self.routers), max((router.experts for router in self.routers), default=0)
        self.choices_LE = torch.zeros(shape, dtype=torch.float64, device=device)
        """How often each expert was chosen by the tokens watched since `begin`."""
        self.chances_LE = torch.zeros_like(self.choices_LE)
        """Their softmax probabilities, added up."""
        self.ahead_LE: Tensor | None = None
        self._seen: list[list[tuple[Tensor, Tensor]]] = []
        self._copies_T: Tensor | None = None  # how many rows share each token; None: no token is shared

    def leave_out(self, modules: Collection[int]) -> None:
        """No longer watches the routers among these modules (ids), which are frozen as all before them is.

        Their part of the loss is a constant: the gradient stays as it was, for the mean is still over all routers.
        """
        watched = [place for place, router in enumerate(self.routers) if id(router.module) not in modules]
        self.routers = [self.routers[place] for place in watched]
        self.names = [self.names[place] for place in watched]
        self.choices_LE, self.chances_LE = self.choices_LE[watched], self.chances_LE[watched]

    def begin(self) -> None:
        """Forgets what was watched."""
        self.choices_LE.zero_()
        self.chances_LE.zero_()
        self.ahead_LE = None

    @contextmanager
    def watching(self, batch: Batch) -> Iterator[None]:
        """Keeps what the routers say about the batch's real tokens (no padding, no virtual ones) in the passes inside.

        Passes without gradient among those with gradient (a reference model's) are not meant and not kept.
        """
        kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.routers]
        graded = torch.is_grad_enabled()

        def keep(place: int, router: Router, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
            if torch.is_grad_enabled() == graded:
                kept[place].append(_said(router, outputs))

        handles = [
            router.module.register_forward_hook(partial(keep, place, router))
            for place, router in enumerate(self.routers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        # picked out only now: a checkpointed layer that is computed again would miss operations of the hook
        real_T = virtual.own_tokens(self.model, batch)
        self._copies_T = batch.layout.copies_T() if batch.layout is not None and batch.layout.shared else None
        self._seen = [
            [each if real_T is None else (each[0][real_T], each[1][real_T]) for each in said] for said in kept
        ]
        for place, seen in enumerate(self._seen):
            for logits_TE, chosen_TK in seen:
                self.choices_LE[place] += self._chosen(chosen_TK, logits_TE.shape[-1])
                self.chances_LE[place] += self._summed(logits_TE.detach().double().softmax(-1))

    @torch.no_grad()
    def look_ahead(self, run: Callable[[Batch], object], batches: Sequence[Batch]) -> Tensor:
        """The choices [L, E] of batches, by a forward pass of each; `loss` takes them for those of the step."""
        self.begin()
        for batch in batches:
            with self.watching(batch):
                run(batch)
        ahead_LE = self.choices_LE.clone()
        self.begin()
        self.ahead_LE = ahead_LE
        return ahead_LE

    def _chosen(self, chosen_TK: Tensor, experts: int) -> Tensor:
        weights = None if self._copies_T is None else self._copies_T.repeat_interleave(chosen_TK.shape[1]).double()
        return torch.bincount(chosen_TK.reshape(-1), weights, minlength=experts)

    def _summed(self, chances_TE: Tensor) -> Tensor:
        return chances_TE.sum(0) if self._copies_T is None else self._copies_T.to(chances_TE.dtype) @ chances_TE

    def loss(self, tokens: int) -> Tensor:
        """What the batch just watched adds to the loss of a step of so many real tokens; a scalar with gradient.

        Without `look_ahead` that batch is taken for the whole step.
        """
        choices_LE = self.choices_LE if self.ahead_LE is None else self.ahead_LE
        parts = []
        for seen, choices_E in zip(self._seen, choices_LE, strict=True):
            share_E = (choices_E / tokens).float()
            chance_E = (
                torch.stack([self._summed(logits_TE.float().softmax(-1)) for logits_TE, _ in seen]).sum(0) / tokens
            )
            parts.append(len(share_E) * (share_E * chance_E).sum())
        return torch.stack(parts).sum() / self.averaged


def balance(choices_LE: Tensor, chances_LE: Tensor, tokens: int) -> float:
    """The load-balancing loss of a whole step, from what was watched over all of it."""
    return float((choices_LE * chances_LE).sum(1).mean() * choices_LE.shape[1] / tokens**2)


def load(choices_LE: Tensor) -> Tensor:
    """Each expert's load [L, E] relative to an even one: 1 is its fair part of the tokens, 0 none."""
    return choices_LE / choices_LE.mean(1, keepdim=True)


def coefficient(config: Any) -> float:
    """The weight that an architecture itself gives the load-balancing loss; 0 where it states none.

    DeepSeek-V3 and its relatives balance by a bias of their routers instead (arXiv 2408.15664); what DeepSeek-V2's
    config calls aux_loss_alpha stands in theirs too, for a loss per sequence, and is not taken.
    """
    text = config.get_text_config()
    own = getattr(text, "router_aux_loss_coef", None)
    if own is None and getattr(text, "topk_method", None) != "noaux_tc":
        own = getattr(text, "aux_loss_alpha", None)
    return float(own or 0.0)


def _said(router: Router, outputs: Any) -> tuple[Tensor, Tensor]:
    """Logits [T, E] and chosen experts [T, k] of what a router returns.

    Its own choice counts, as groups and biases enter that beside the logits; one that gives none takes the largest k.
    """
    logits = outputs[router.logits] if isinstance(outputs, tuple) else outputs
    logits_TE = logits.reshape(-1, logits.shape[-1])
    whole = [part for part in outputs if isinstance(part, Tensor) and not part.is_floating_point()]
    top_k: Any = getattr(router.module, "top_k", 1)
    chosen = whole[0] if whole else logits_TE.detach().topk(top_k, dim=-1).indices
    return logits_TE, chosen.reshape(len(logits_TE), -1).long()
