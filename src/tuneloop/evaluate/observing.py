"""What a contestant does with the examples, and the observations that metrics score; knows nothing of reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuneloop.core.conversation import Example
from tuneloop.evaluate.config import EvaluateConfig
from tuneloop.evaluate.contestant import Answer, Contestant, Likelihood, answers, likelihoods
from tuneloop.evaluate.metrics import METRICS, Choice, Metric, Observation, Sampling, Score
from tuneloop.evaluate.slices import labels_of
from tuneloop.generate.engine import Decoding, Request
from tuneloop.track.console import progress, say

CHOICES = "choices"  # the column with the answers that a multiple-choice question offers


@dataclass
class Observed:
    """Everything that one contestant did, each list as long as the examples; empty where no metric needs it."""

    answers: list[Answer] = field(default_factory=list[Answer])
    likelihoods: list[Likelihood] = field(default_factory=list[Likelihood])
    choices: list[list[Choice] | str] = field(default_factory=list["list[Choice] | str"])
    """Of each example its choices, or why there are none."""
    samples: dict[Sampling, list[list[Answer]]] = field(default_factory=dict[Sampling, "list[list[Answer]]"])
    max_new_tokens: int | None = None
    seconds: float = 0.0
    """What the answers took."""


def ask(name: str, contestant: Contestant, config: EvaluateConfig, examples: Sequence[Example]) -> Observed:
    """All that the metrics of the recipe need, with progress; `name` is the contestant's, for the console."""
    needs = {metric.NEEDS for metric in config.metrics}
    out = Observed()
    if "likelihood" in needs:
        with progress(f"{name}: likelihoods", len(examples)) as bar:
            out.likelihoods = likelihoods(contestant, examples, bar.advance)
    if "choices" in needs:
        with progress(f"{name}: choices", len(examples)) as bar:
            out.choices = weigh_choices(contestant, examples, bar.advance)
    if needs & {"generation", "samples"}:
        out.max_new_tokens = answer_length(contestant, config, examples)
        if config.max_new_tokens == "auto":
            say(f"{name}: answers may have {out.max_new_tokens} tokens (twice the longest reference plus 8)")
    if "generation" in needs and out.max_new_tokens is not None:
        started = time.perf_counter()
        with progress(f"{name}: answers", len(examples)) as bar:
            out.answers = answers(contestant, examples, Decoding(out.max_new_tokens), bar.advance)
        out.seconds = time.perf_counter() - started
    wanted = {metric.sampling for metric in config.metrics} - {None}
    for sampling in sorted((one for one in wanted if one), key=str):
        with progress(f"{name}: {sampling.n} samples each", len(examples) * sampling.n) as bar:
            out.samples[sampling] = draw(contestant, examples, sampling, out.max_new_tokens or 0, bar.advance)
    return out


def answer_length(contestant: Contestant, config: EvaluateConfig, examples: Sequence[Example]) -> int:
    """The limit of new tokens: as set, or twice the longest reference plus 8 in this model's own tokens."""
    if config.max_new_tokens != "auto":
        return config.max_new_tokens
    texts = [(example.answer.reasoning or "") + example.answer.content for example in examples]
    return 2 * max(map(contestant.count, texts)) + 8


def draw(
    contestant: Contestant,
    examples: Sequence[Example],
    sampling: Sampling,
    max_new_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """`sampling.n` sampled answers to each example's prompt."""
    decoding = Decoding(max_new_tokens, sampling.temperature, sampling.top_p)
    requests = [
        Request(example.prompt, example.tools, sampling.seed + number)
        for example in examples
        for number in range(sampling.n)
    ]
    done = (lambda place, completion: progress(1)) if progress is not None else None
    found = [Answer.of(completion) for completion in contestant.engine.answer(requests, decoding, done)]
    return [found[start : start + sampling.n] for start in range(0, len(found), sampling.n)]


def weigh_choices(
    contestant: Contestant, examples: Sequence[Example], progress: Callable[[int], None] | None = None
) -> list[list[Choice] | str]:
    """The likelihood of each answer that an example offers: its column `choices`, else the labels of the whole set."""
    labels = labels_of([reference(example) for example in examples])
    offered = [list(map(str, example.meta.get(CHOICES) or labels)) for example in examples]
    asked = [
        example.asking(replace(example.answer, content=choice, tool_calls=(), reasoning=None))
        for example, choices in zip(examples, offered, strict=True)
        for choice in choices
    ]
    weighed = iter(likelihoods(contestant, asked))
    found: list[list[Choice] | str] = []
    for choices in offered:
        given = [(choice, next(weighed)) for choice in choices]
        why = next((likelihood.why for _, likelihood in given if likelihood.nll is None), None)
        if len(choices) < 2:
            found.append("fewer than two choices: give the column `choices`, or references that are few labels")
        elif why is not None:
            found.append(why)
        else:
            found.append([Choice(choice, of.nll or 0.0, of.tokens) for choice, of in given])
        if progress is not None:
            progress(1)
    return found


def reference(example: Example) -> str | None:
    """The expected text; None where the answer is a tool call or empty, which text metrics cannot score."""
    answer = example.answer
    return answer.content if answer.content.strip() and not answer.tool_calls else None


def observe(
    metric: Metric, examples: Sequence[Example], who: Observed, rival: Observed | None = None
) -> list[Observation | Score]:
    """What a metric sees of each example; an unscored Score where the contestant did not get to an answer."""
    labels = labels_of([reference(example) for example in examples])
    found: list[Observation | Score] = []
    for place, example in enumerate(examples):
        seen = Observation(
            reference(example), labels=labels, expected=example.answer, prompt=example.prompt, meta=example.meta
        )
        if rival is not None and rival.answers:
            seen = replace(seen, rival=rival.answers[place].text)
        found.append(_seen(metric, seen, who, place))
    return found


def _seen(metric: Metric, seen: Observation, who: Observed, place: int) -> Observation | Score:
    match metric.NEEDS:
        case "generation":
            answer = who.answers[place]
            if answer.text is None:
                return Score(None, answer.why)
            return replace(seen, text=answer.text, calls=answer.calls)
        case "likelihood":
            likelihood = who.likelihoods[place]
            if likelihood.nll is None:
                return Score(None, likelihood.why)
            return replace(seen, nll=likelihood.nll, tokens=likelihood.tokens)
        case "choices":
            choices = who.choices[place]
            return Score(None, choices) if isinstance(choices, str) else replace(seen, choices=tuple(choices))
        case "samples":
            assert metric.sampling is not None
            drawn = who.samples[metric.sampling][place]
            why = next((answer.why for answer in drawn if answer.text is None), None)
            texts = tuple(answer.text for answer in drawn if answer.text is not None)
            return Score(None, why) if why else replace(seen, samples=texts)


def score(metric: Metric, seen: Sequence[Observation | Score], name: str = "") -> list[Score]:
    """The metric on what there is to score, in order; slow ones show progress under the contestant's `name`."""
    observations = [one for one in seen if isinstance(one, Observation)]
    if metric.SLOW:
        with progress(f"{name}: {METRICS.name_of(metric)}", len(observations)) as bar:
            scored = iter(metric.score_all(observations, bar.advance))
    else:
        scored = iter(metric.score_all(observations, lambda count: None))
    return [next(scored) if isinstance(one, Observation) else one for one in seen]


def score_contestants(
    config: EvaluateConfig, examples: Sequence[Example], observed: Mapping[str, Observed]
) -> tuple[dict[str, dict[str, list[Score]]], dict[str, dict[str, object]]]:
    """(scores by contestant and metric, details by metric and contestant)."""
    scores: dict[str, dict[str, list[Score]]] = {name: {} for name in observed}
    details: dict[str, dict[str, object]] = {}
    for metric in config.metrics:
        title = METRICS.name_of(metric)
        for name, who in observed.items():
            other = next((found for rival, found in observed.items() if rival != name), None)
            seen = observe(metric, examples, who, other)
            scores[name][title] = score(metric, seen, name)
            kept = [place for place, one in enumerate(seen) if isinstance(one, Observation)]
            given = [scores[name][title][place] for place in kept]
            found = metric.details([one for one in seen if isinstance(one, Observation)], given)
            if found is not None:
                details.setdefault(title, {})[name] = found
    return scores, details
