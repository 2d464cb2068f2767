"""What one model does with examples: its answers and likelihoods. Knows nothing of metrics or other models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuneloop.core.conversation import Example, ToolCall
from tuneloop.generate.engine import Completion, Decoding, Engine, Request
from tuneloop.render.rendered import Unrenderable

if TYPE_CHECKING:
    from tuneloop.forward.distributions import Distributions
    from tuneloop.render.template import Rendered, Renderer

BEHIND_AN_API = "a likelihood needs the model's weights, and a server gives answers only"
BLOCK = 256  # examples scored between two signs of progress; within a block `nll` forms its own batches

Nll = Callable[[Sequence["Rendered"]], list[tuple[float, float]]]
"""(summed nll in nats, summed weight) of each Rendered, as `forward.nll` gives them."""

Weigh = Callable[[Sequence["Rendered"]], list[tuple[float, bool]]]
"""(summed log-likelihood in nats, whether greedy decoding gives just these tokens) of what is scored of each."""

Progress = Callable[[int], None]
"""Called with the number of examples done since the last call."""


@dataclass(frozen=True)
class Contestant:
    """A model that can be asked: answers by `engine`; where its weights are here, likelihoods by `renderer` and `nll`.

    Behind an API there are answers only, and `local` is None.
    """

    engine: Engine
    local: Local | None = None

    def count(self, text: str) -> int:
        """Tokens of a text: exact where the tokenizer is here, else no fewer than any usual tokenizer makes."""
        if self.local is None:
            return len(text.encode())
        return len(self.local.renderer.tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True)
class Local:
    """What only weights in this process can give."""

    renderer: Renderer
    nll: Nll
    weigh: Weigh | None = None
    distributions: Callable[[Sequence[Rendered]], Distributions] | None = None
    """What it says after every token of some rows, to be compared with another model's."""
    context: int | None = None
    """Tokens that the model can see; None where it does not say."""


Entrant = Callable[[], AbstractContextManager[Contestant]]
"""Opens a contestant and lets go of it afterwards, so that two models need not be in memory together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer, or None with the reason why there is none."""

    text: str | None
    finished: bool = False
    why: str | None = None
    calls: tuple[ToolCall, ...] = ()
    """The tool calls in it, where the engine gives them apart; `text` is then what is said beside them."""
    known: bool = field(default=False, compare=False)
    """Whether it is kept from an earlier asking."""

    @classmethod
    def of(cls, completion: Completion) -> Answer:
        """The answer that an engine gave."""
        if completion.refused is not None:
            return cls(None, why=completion.refused)
        return cls(completion.text, completion.finished, calls=completion.calls, known=completion.known)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of the supervised tokens of one example, or None with the reason."""

    nll: float | None
    tokens: float = 0.0
    why: str | None = None


def answers(
    contestant: Contestant, examples: Sequence[Example], decoding: Decoding, progress: Progress | None = None
) -> list[Answer]:
    """The answer to each example's prompt, in order."""
    requests = [Request(example.prompt, example.tools) for example in examples]
    done = (lambda place, completion: progress(1)) if progress is not None else None
    return [Answer.of(completion) for completion in contestant.engine.answer(requests, decoding, done)]


def likelihoods(
    contestant: Contestant, examples: Sequence[Example], progress: Progress | None = None
) -> list[Likelihood]:
    """The likelihood of each example's supervised tokens; the parts of an example that renders to several add up.

    A model behind an API gives none.
    """
    if contestant.local is None:
        return [Likelihood(None, why=BEHIND_AN_API) for _ in examples]
    found: list[Likelihood] = []
    for start in range(0, len(examples), BLOCK):
        block = examples[start : start + BLOCK]
        found.extend(_likelihoods(contestant.local, block))
        if progress is not None:
            progress(len(block))
    return found


def _likelihoods(local: Local, examples: Sequence[Example]) -> list[Likelihood]:
    rendered: list[Rendered] = []
    parts: list[int | str] = []
    for example in examples:
        try:
            several = local.renderer.render(example)
        except Unrenderable as error:
            parts.append(error.reason)
        else:
            rendered.extend(several)
            parts.append(len(several))
    scored = iter(local.nll(rendered))
    found: list[Likelihood] = []
    for part in parts:
        if isinstance(part, str):
            found.append(Likelihood(None, why=part))
        else:
            pairs = [next(scored) for _ in range(part)]
            found.append(Likelihood(sum(nll for nll, _ in pairs), sum(weight for _, weight in pairs)))
    return found
