"""Tasks of lm-evaluation-harness on our contestants, by our renderer, forward pass and engine. An extra.

The harness makes the prompts and scores what comes back; nothing else of it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tuneloop.core.conversation import Message
from tuneloop.core.errors import DataError, MissingExtra
from tuneloop.evaluate.contestant import Contestant, Local
from tuneloop.generate.engine import Decoding, Request
from tuneloop.render.rendered import Rendered

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

NEW_TOKENS = 256
"""Of an answer, where a task does not say; the harness's own default."""
Json = dict[str, Any]


def run(contestant: Contestant, tasks: Sequence[str], limit: int | None, chat: bool) -> dict[str, dict[str, Json]]:
    """{task: {"metric,filter": {"value", "stderr", "n"}}}; `chat` puts prompts into the model's chat template.

    Raises MissingExtra without the package, DataError for a task that it does not know or cannot run offline, and for
    a model behind an API, of which no likelihoods are known.
    """
    try:
        from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("lm_eval", "evaluate.tasks", "lm-eval") from error
    if contestant.local is None or contestant.local.weigh is None:
        raise DataError("evaluate.tasks needs the model's weights here; leave it out, or leave evaluate.against out")
    own = all(name.endswith((".yaml", ".yml")) for name in tasks)  # then its thousands of tasks need not be read
    with _quiet():
        try:
            manager = TaskManager(include_defaults=not own)
            found = simple_evaluate(
                model=_language_model(contestant, contestant.local), tasks=list(tasks), limit=limit, log_samples=False,
                task_manager=manager, apply_chat_template=chat, bootstrap_iters=1000,
            )  # fmt: skip
        except (KeyError, ValueError, OSError) as error:
            raise DataError(f"evaluate.tasks [{', '.join(tasks)}]: {error}; `lm_eval ls tasks` lists them") from error
    assert found is not None
    return {task: _scores(values, found["n-samples"].get(task, {})) for task, values in found["results"].items()}


def _scores(values: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, value in values.items():
        metric, _, rule = name.partition(",")
        if rule and not metric.endswith("_stderr") and isinstance(value, int | float):
            stderr = values.get(f"{metric}_stderr,{rule}")
            known = float(stderr) if isinstance(stderr, int | float) else None
            found[name] = {"value": float(value), "stderr": known, "n": counts.get("effective")}
    return found


def report(by_contestant: Mapping[str, Mapping[str, Mapping[str, Json]]], confidence: float) -> Json:
    """{task: {metric: {contestant: {"value", "low", "high", "stderr", "n"}}}}; intervals are ± z · stderr."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    out: Json = {}
    for who, tasks in by_contestant.items():
        for task, metrics in tasks.items():
            for metric, score in metrics.items():
                reach = None if score["stderr"] is None else z * score["stderr"]
                low, high = (None, None) if reach is None else (score["value"] - reach, score["value"] + reach)
                out.setdefault(task, {}).setdefault(metric, {})[who] = {**score, "low": low, "high": high}
    return out


@dataclass(frozen=True)
class _Ids:
    """Token ids of a row; only the last `scored` ones count."""

    ids: list[int]
    scored: int

    def rendered(self) -> Rendered:
        weights = np.zeros(len(self.ids), np.float32)
        weights[len(self.ids) - self.scored :] = 1
        return Rendered(np.array(self.ids, np.int32), weights, "task")


def _language_model(contestant: Contestant, local: Local) -> Any:
    """The harness's interface over a contestant."""
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
        get_rolling_token_windows,
        make_disjoint_window,
    )

    renderer = local.renderer
    context = int(local.context or 2048)

    class LanguageModel(TemplateLM):
        tokenizer = renderer.tokenizer
        tokenizer_name = renderer.digest()
        eot_token_id: int = (
            renderer.pad_id if renderer.tokenizer.eos_token_id is None else cast("int", renderer.tokenizer.eos_token_id)
        )

        @property
        def prefix_token_id(self) -> int:
            bos = renderer.tokenizer.bos_token_id
            return self.eot_token_id if bos is None else int(bos)  # type: ignore[arg-type]  # one token

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            if add_special_tokens is False:
                return renderer.tokenizer.encode(string, add_special_tokens=False)
            return renderer.prompt((Message("text", string),))

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return renderer.template.text(chat_history, (), prompt=add_generation_prompt)

        def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
        ) -> list[tuple[float, bool]]:
            rows = [_Ids((before + after)[-context:], min(len(after), context - 1)) for _, before, after in requests]
            assert local.weigh is not None
            return local.weigh([row.rendered() for row in rows])

        def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
            totals: list[float] = []
            for (text,) in (request.args for request in requests):
                ids = self.tok_encode(text, add_special_tokens=False)
                windows = get_rolling_token_windows(ids, self.prefix_token_id, context - 1, 1)
                pairs = [(None, *make_disjoint_window(window)) for window in windows]
                totals.append(sum(log for log, _ in self._loglikelihood_tokens(pairs)))
            return totals

        def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
            out: dict[int, str] = {}
            groups: dict[Decoding, list[int]] = {}
            for place, request in enumerate(requests):
                groups.setdefault(_decoding(request.args[1]), []).append(place)
            for decoding, places in groups.items():
                asked = [Request((Message("text", requests[place].args[0]),), seed=place) for place in places]
                for place, answer in zip(places, contestant.engine.answer(asked, decoding), strict=True):
                    out[place] = _until(answer.text, requests[place].args[1].get("until"))
            return [out[place] for place in range(len(requests))]

    return LanguageModel()


def _decoding(wanted: Mapping[str, Any]) -> Decoding:
    sampled = bool(wanted.get("do_sample", wanted.get("temperature", 0)))
    return Decoding(
        int(wanted.get("max_gen_toks", wanted.get("max_new_tokens", NEW_TOKENS))),
        float(wanted.get("temperature", 1.0)) if sampled else 0.0,
        float(wanted.get("top_p", 1.0)),
    )


def _until(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first of the stop texts."""
    for stop in [until] if isinstance(until, str) else until or ():
        if stop:
            text = text.partition(stop)[0]
    return text


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's own log: what it says is for its own command line."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
