"""Models as the evaluation meets them: base and tuned of a run, a served one, and the model in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.core import digest
from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Contestant, Entrant, Local
from tuneloop.generate.config import EndpointConfig
from tuneloop.models.config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.render.template import Renderer

Scorer = Callable[["nn.Module", "Renderer", Sequence[Example]], dict[str, tuple[float, bool]]]


def entrant(config: ModelConfig, seed: int, *, cached: bool = False) -> Entrant:
    """A model by its branch of the recipe, opened when its turn comes; `cached` ones remember answers."""

    @contextmanager
    def opened() -> Iterator[Contestant]:
        import torch

        from tuneloop.models.adapters import load_with_adapter
        from tuneloop.models.find import find_base
        from tuneloop.models.precision import pick_dtype
        from tuneloop.render.load import renderer_of

        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = find_base(config)
        dtype, _ = pick_dtype(config.dtype, device)
        model = load_with_adapter(base, dtype, seed=seed, device=device)
        renderer = renderer_of(base)
        parts = [base.digest, renderer.digest(), str(dtype), base.config.model_dump(mode="json")]
        found = contestant(model, renderer, digest.of_value([*parts, seed if base.is_new else None]))
        yield _remembering(found) if cached else found

    return opened


def served(config: EndpointConfig, *, cached: bool = False) -> Entrant:
    """A model behind an OpenAI-compatible API."""

    @contextmanager
    def opened() -> Iterator[Contestant]:
        from tuneloop.generate.openai_engine import OpenAIEngine

        engine = OpenAIEngine(
            config.url, config.model, config.key_env, concurrency=config.concurrency, timeout=config.timeout
        )
        yield _remembering(Contestant(engine)) if cached else Contestant(engine)

    return opened


def _remembering(contestant: Contestant) -> Contestant:
    from tuneloop.generate.cache import CachedEngine

    return replace(contestant, engine=CachedEngine(contestant.engine))


def contestant(model: nn.Module, renderer: Renderer, identity: str = "") -> Contestant:
    """A loaded model, ready to answer and to score; `identity` as Engine's, empty for a model that still changes."""
    from tuneloop.forward import objective as forward
    from tuneloop.forward.plan import token_budget
    from tuneloop.generate.transformers_engine import TransformersEngine

    def nll(rows: Sequence[forward.Row]) -> list[tuple[float, float]]:
        scored, _ = forward.prepare(model, rows, renderer.pad_id)
        return forward.nll(
            scored, rows, pad_id=renderer.pad_id, budget=token_budget(str(next(model.parameters()).device))
        )

    return Contestant(TransformersEngine(model, renderer, identity), Local(renderer, nll))


def tuned_config(config: ModelConfig, run: Path) -> ModelConfig:
    """The branch `model` of what a tune run has made: base and adapter, or the new model in the base's place."""
    changes = {"base": str(run), "architecture": None, "tokenizer": None, "adapter": None, "revision": None}
    return config.model_copy(update=changes)


def scorer(config: EvaluateConfig) -> Scorer:
    """Metrics on generated answers of the model in training, for validation and early stopping."""

    def score(model: nn.Module, renderer: Renderer, examples: Sequence[Example]) -> dict[str, tuple[float, bool]]:
        from tuneloop.evaluate.during import quick_scores

        return quick_scores(config, contestant(model, renderer), examples)

    return score
