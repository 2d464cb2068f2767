"""What tuning cost: abilities of the base, asked again of a tuned model, item by item, and the drift of what it says.

An ability is a set of probes with the way it is scored. The shapes here are those of report.json's `forgetting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.core.choice import choose
from tuneloop.core.conversation import Example
from tuneloop.core.errors import DataError
from tuneloop.evaluate.config import EvaluateConfig, ForgettingConfig, ProbeSet
from tuneloop.evaluate.contestant import Contestant, answers, likelihoods
from tuneloop.evaluate.contradiction import rivals, says_instead
from tuneloop.evaluate.drift import Drift
from tuneloop.evaluate.kept import Kept
from tuneloop.evaluate.metrics import METRICS, Metric, Observation, Score
from tuneloop.evaluate.metrics.multiple_choice import MultipleChoice
from tuneloop.evaluate.observing import CHOICES, Observed, answer_length, observe, score, weigh_choices
from tuneloop.evaluate.probes import asked, has_answer, is_prose, is_text, read_probes
from tuneloop.evaluate.recall import BitsPerByte, Match, likeliest, perplexity
from tuneloop.evaluate.scoring import PROPORTION, How, compare, estimate, groups, how, picked, summary
from tuneloop.generate.engine import Decoding
from tuneloop.render.whole import render_whole
from tuneloop.track.console import progress

if TYPE_CHECKING:
    from tuneloop.forward.distributions import Distributions

Json = dict[str, Any]
SLICES = ("kind", "group", "language")
NEUTRAL = 200  # prompts of `neutral: auto`
LONGEST = 512  # tokens of a neutral prompt


@dataclass(frozen=True)
class Ability:
    """What a model may be able to do: probes and the metric that scores them."""

    name: str
    probes: Sequence[Example]
    metric: Metric
    max_new_tokens: int | None
    """None: twice the longest reference plus 8."""
    source: str = ""
    """The file, or `embedded`."""


@dataclass
class Probed:
    """What one model did: per ability its answers (or likelihoods), and what it says on the neutral prompts."""

    seen: dict[str, Observed]
    distributions: Distributions | None = None
    why: str = ""
    """Why there are no distributions."""


@dataclass(frozen=True)
class Probes:
    """All that is asked."""

    abilities: Sequence[Ability]
    neutral: Sequence[Example]


# -- what is asked -----------------------------------------------------------------------------------------------------
def load(config: ForgettingConfig) -> Probes:
    """The abilities of the recipe and the neutral prompts. Raises DataError for files that do not fit their score."""
    abilities = [_ability(name, one, config) for name, one in config.sets.items()]
    neutral: list[Example] = []
    if config.neutral == "auto":
        everything = [probe for ability in abilities for probe in ability.probes]
        neutral = choose(everything, NEUTRAL, "neutral")
    elif config.neutral is not None:
        neutral = read_probes(config.neutral)
    return Probes(abilities, neutral)


def _ability(name: str, one: ProbeSet, config: ForgettingConfig) -> Ability:
    probes = choose(read_probes(one.path), one.limit or config.limit, "evaluate")
    place = f"evaluate.forgetting.probes.{name} ({one.path})"
    metric = _metric(one, probes, place)
    if metric.NEEDS == "samples":
        raise DataError(f"{place}: score: {METRICS.name_of(metric)} draws samples; probes are answered once, greedily")
    if not isinstance(metric, BitsPerByte):
        missing = next((probe for probe in probes if not has_answer(probe) and not is_text(probe)), None)
        if missing is not None:
            raise DataError(f"{place}: row {missing.origin.row} has no answer; a probe needs a question and its answer")
    return Ability(name, probes, metric, one.max_new_tokens or config.max_new_tokens, one.path)


def _metric(one: ProbeSet, probes: Sequence[Example], place: str) -> Metric:
    if isinstance(one.score, Metric):
        return one.score
    texts, offered = sum(map(is_text, probes)), sum(CHOICES in probe.meta for probe in probes)
    score = one.score
    if score == "auto":
        score = "text" if texts == len(probes) else "choices" if offered == len(probes) else "match"
    wrong = {
        "text": (len(probes) - texts, "texts are rows with `text` alone, or a .txt file"),
        "choices": (len(probes) - offered, "each row needs `choices`, and its `answer` among them"),
        "match": (texts, "each row needs `prompt` or `question`, and `answer`"),
    }[score]
    if wrong[0]:
        raise DataError(f"{place}: {wrong[0]} of {len(probes)} rows do not fit score: {score}; {wrong[1]}")
    if score == "choices":
        _check_choices(probes, place)
        return MultipleChoice(per="byte")
    if score == "text":
        return BitsPerByte()
    prose = [is_prose(probe) for probe in probes]
    if any(prose) != all(prose):
        raise DataError(f"{place}: prose (`prompt`) and chat questions (`question`) are scored unlike; make two sets")
    return Match(prose=all(prose))


def _check_choices(probes: Sequence[Example], place: str) -> None:
    for probe in probes:
        offered = probe.meta[CHOICES]
        texts = [str(one).strip() for one in offered] if isinstance(offered, list) else []
        if len(set(texts)) < 2 or not has_answer(probe) or probe.answer.content.strip() not in texts:
            raise DataError(
                f"{place}: row {probe.origin.row}: `choices` are at least two answers, and `answer` one of them"
            )


# -- asking ------------------------------------------------------------------------------------------------------------
def probe(name: str, contestant: Contestant, probes: Probes) -> Probed:
    """Asks one model everything, with progress; `name` is the contestant's."""
    return listen(Probed(ask(name, contestant, probes.abilities, Kept(""))), contestant, probes.neutral)


def ask(name: str, contestant: Contestant, abilities: Sequence[Ability], kept: Kept) -> dict[str, Observed]:
    """What one model does with each ability; what is `kept` from an earlier asking is not asked again."""
    found: dict[str, Observed] = {}
    for ability in abilities:
        asked = [ability.metric.NEEDS, ability.max_new_tokens, [example.to_json() for example in ability.probes]]
        seen = kept.observed(asked)
        if seen is None:
            seen = _ask(name, contestant, ability)
            kept.keep_observed(asked, seen)
        found[ability.name] = seen
    return found


def listen(probed: Probed, contestant: Contestant, neutral: Sequence[Example]) -> Probed:
    """Adds what the model says on the neutral prompts, or why that cannot be known."""
    if neutral and (contestant.local is None or contestant.local.distributions is None):
        probed.why = "KL needs the models' weights, and a model behind an API gives answers only"
    elif neutral and contestant.local is not None and contestant.local.distributions is not None:
        rows = render_whole(contestant.local.renderer, neutral, LONGEST, "evaluate.forgetting.neutral")
        probed.distributions = contestant.local.distributions(rows)
    return probed


def _ask(name: str, contestant: Contestant, ability: Ability) -> Observed:
    out = Observed()
    with progress(f"{name}: {ability.name}", len(ability.probes)) as bar:
        if ability.metric.NEEDS == "generation":
            limit = ability.max_new_tokens or answer_length(contestant, EvaluateConfig(), ability.probes)
            decoding = Decoding(limit)
            out.answers = answers(contestant, ability.probes, decoding, bar.advance)
        elif ability.metric.NEEDS == "likelihood":
            out.likelihoods = likelihoods(contestant, ability.probes, bar.advance)
        else:
            out.choices = weigh_choices(contestant, ability.probes, bar.advance)
    return out


# -- the report --------------------------------------------------------------------------------------------------------
def forgetting_report(probes: Probes, probed: Mapping[str, Probed], confidence: float) -> Json:
    """The `forgetting` part of report.json of `base` and `tuned`, or of one of them.

    `abilities` has every set; the first of them that has right and wrong answers also stands at the top.
    """
    entries = {
        ability.name: entry(ability, {who: one.seen[ability.name] for who, one in probed.items()}, confidence)
        for ability in probes.abilities
    }
    first = next((a for a in probes.abilities if entries[a.name]["aggregation"] == "proportion"), probes.abilities[0])
    out: Json = {"probes": first.source, "ability": first.name, **entries[first.name], "abilities": entries}
    if "base" in probed and "tuned" in probed and probes.neutral:
        out["kl"] = Drift.between(probed["tuned"], probed["base"], len(probes.neutral)).to_json(confidence)
    return out


def entry(ability: Ability, seen: Mapping[str, Observed], confidence: float) -> Json:
    """One ability: numbers over all, by kind, group and language; what was lost, won and contradicted."""
    scores = {who: scored(ability, one, who) for who, one in seen.items()}
    way = how(ability.metric)
    metas = [probe.meta for probe in ability.probes]
    out = summary(ability.metric, scores, confidence)
    out["slices"] = {
        key: {value: compare(way, picked(scores, rows), confidence) for value, rows in found.items()}
        for key in SLICES
        if len(found := groups(metas, key)) > 1
    }
    if isinstance(ability.metric, BitsPerByte):
        out["perplexity"] = compare(How("corpus", combine=perplexity), scores, confidence)
    if ability.metric.AGGREGATION == "proportion" and "base" in scores and "tuned" in scores:
        out |= _changes(ability, seen, scores, confidence)
    return out


def scored(ability: Ability, seen: Observed, who: str = "") -> list[Score]:
    """The score of each probe."""
    return score(ability.metric, observe(ability.metric, ability.probes, seen), who)


def _changes(
    ability: Ability, seen: Mapping[str, Observed], scores: Mapping[str, Sequence[Score]], confidence: float
) -> Json:
    """The items lost and won, and the share of what was known that is now contradicted."""
    lost: list[Json] = []
    won: list[Json] = []
    others = rivals(ability.probes)
    said = {who: _said(ability, one) for who, one in seen.items()}
    for index, example in enumerate(ability.probes):
        before, after = scores["base"][index].value, scores["tuned"][index].value
        line = {
            "id": example.id, "prompt": asked(example), "answer": example.answer.content.strip(),
            **{who: given[index] for who, given in said.items()},
            **{key: example.meta[key] for key in SLICES if key in example.meta},
        }  # fmt: skip
        if before == 1 and after == 0:
            claims = line["tuned"] or ""
            chosen = ability.metric.NEEDS == "choices"
            lost.append({**line, "instead": claims if chosen else says_instead(claims, example, others[index])})
        elif before == 0 and after == 1:
            won.append(line)
    pairs = zip(scores["base"], scores["tuned"], strict=True)
    kept = sum(before.value == 1 and after.value == 1 for before, after in pairs)
    claimed = [Score(float(line["instead"] is not None)) for line in lost] + [Score(0.0)] * kept
    return {"lost": lost, "won": won, "contradicted": estimate(PROPORTION, claimed, confidence)}


def _said(ability: Ability, seen: Observed) -> list[str | None]:
    """What the model answered to each probe, as text."""
    if ability.metric.NEEDS == "generation":
        return [answer.text for answer in seen.answers]
    found = observe(ability.metric, ability.probes, seen)
    return [likeliest(one) if isinstance(one, Observation) and one.choices else None for one in found]
