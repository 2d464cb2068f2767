"""Models as the evaluation meets them: base and tuned of a run, a served one, and the model in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.core import digest
from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Contestant, Entrant, Local, Nll
from tuneloop.generate.config import EndpointConfig
from tuneloop.models.config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.render.template import Renderer
    from tuneloop.tune.config import TuneConfig
    from tuneloop.tune.validation import Scorer


def entrant(config: ModelConfig, seed: int, *, cached: bool = False) -> Entrant:
    """A model by its branch of the recipe, opened when its turn comes; `cached` ones remember answers."""

    @contextmanager
    def opened() -> Iterator[Contestant]:
        import torch

        from tuneloop.models.adapters import load_with_adapter
        from tuneloop.models.find import find_base
        from tuneloop.models.packed import pack
        from tuneloop.models.precision import pick_dtype
        from tuneloop.render.load import renderer_of

        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = find_base(config)
        dtype, _ = pick_dtype(config.dtype, device)
        model = load_with_adapter(base, dtype, seed=seed, device=device)
        pack(model)
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
            config.url, config.model, config.key_env, concurrency=config.concurrency, timeout=config.timeout,
            dialect=config.dialect,
        )  # fmt: skip
        yield _remembering(Contestant(engine)) if cached else Contestant(engine)

    return opened


def _remembering(contestant: Contestant) -> Contestant:
    from tuneloop.generate.cache import CachedEngine

    return replace(contestant, engine=CachedEngine(contestant.engine))


def contestant(model: nn.Module, renderer: Renderer, identity: str = "") -> Contestant:
    """A loaded model, ready to answer and to score; `identity` as Engine's, empty for a model that still changes."""
    from tuneloop.forward import greedy
    from tuneloop.forward import objective as forward
    from tuneloop.forward.distributions import Distributions
    from tuneloop.forward.distributions import distributions as keep
    from tuneloop.forward.plan import token_budget
    from tuneloop.generate.transformers_engine import TransformersEngine

    budget = token_budget(str(next(model.parameters()).device))

    def nll(rows: Sequence[forward.Row]) -> list[tuple[float, float]]:
        scored, _ = forward.prepare(model, rows, renderer.pad_id)
        return forward.nll(scored, rows, pad_id=renderer.pad_id, budget=budget)

    def weigh(rows: Sequence[forward.Row]) -> list[tuple[float, bool]]:
        scored, _ = forward.prepare(model, rows, renderer.pad_id)
        return greedy.weigh(scored, rows, pad_id=renderer.pad_id, budget=budget)

    def distributions(rows: Sequence[forward.Row]) -> Distributions:
        asked, _ = forward.prepare(model, rows, renderer.pad_id)
        return keep(asked, rows, pad_id=renderer.pad_id, budget=budget)

    context = getattr(forward.core_of(model).config.get_text_config(), "max_position_embeddings", None)
    return Contestant(
        TransformersEngine(model, renderer, identity), Local(renderer, nll, weigh, distributions, context)
    )


def tuned_config(config: ModelConfig, run: Path) -> ModelConfig:
    """The branch `model` of what a tune run has made: base and adapter, or the new model in the base's place."""
    changes = {"base": str(run), "architecture": None, "tokenizer": None, "adapter": None, "revision": None}
    return config.model_copy(update=changes)


def scorer(config: EvaluateConfig, tune: TuneConfig) -> Scorer:
    """Metrics of the model in training, for validation and early stopping."""
    from tuneloop.evaluate.during import measured, quick_scores

    metrics = measured(config, tune.validation.metrics, tune.stop_metric)

    def score(model: nn.Module, renderer: Renderer, nll: Nll, examples: Sequence[Example]) -> Any:
        from tuneloop.generate.transformers_engine import TransformersEngine  # the first step does not wait for it

        return quick_scores(
            config, metrics, Contestant(TransformersEngine(model, renderer), Local(renderer, nll)), examples
        )

    return score
