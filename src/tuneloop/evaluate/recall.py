"""How probes are scored where no metric of the family is asked for; knows nothing of base and tuned."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneloop.evaluate.metrics import Metric, Observation, Score, bits_per_byte, missing
from tuneloop.evaluate.probes import ACCEPTED
from tuneloop.evaluate.text import has_unspaced, nfkc
from tuneloop.stats.bootstrap import ratio

if TYPE_CHECKING:
    from tuneloop.evaluate.metrics import Array


class Match(Metric):
    """1 when prose begins with an accepted answer, or a chat answer names one, as a whole; else 0."""

    BETTER = "higher"
    NEEDS = "generation"
    AGGREGATION = "proportion"

    prose: bool
    """Whether the probes are completions of prose."""

    @property
    def signature(self) -> str:
        if self.prose:
            return "completion|greedy|strip|starts_with_answer|as_a_whole_word|v1"
        return "chat|greedy|nfkc:yes|case:no|names_answer|as_a_whole_word|v1"

    def score(self, observation: Observation) -> Score:
        if observation.reference is None or observation.text is None:
            return Score(None, missing(observation))
        right = is_right if self.prose else names
        accepted = observation.meta.get(ACCEPTED) or [observation.reference]
        return Score(float(any(right(observation.text, answer) for answer in accepted)))


class BitsPerByte(bits_per_byte.BitsPerByte):
    """The metric `bits_per_byte` of a text alone, with the tokens that perplexity needs beside it."""

    @property
    def signature(self) -> str:
        return "bits_per_byte|utf8|first_token_given_where_no_bos|v1"

    def score(self, observation: Observation) -> Score:
        found = super().score(observation)
        if found.value is None:
            return found
        return replace(found, statistics=(*found.statistics, observation.tokens or 0.0))


def perplexity(sums_RS: Array) -> Array:
    """[R] perplexities per token from sums of BitsPerByte's statistics."""
    import numpy as np

    return np.exp2(ratio(sums_RS[:, [0, 2]]))


def likeliest(observation: Observation) -> str:
    """The choice that the model prefers, per byte of UTF-8 so that short ones have no advantage."""
    return min(observation.choices, key=lambda choice: choice.nll / max(1, len(choice.text.encode()))).text.strip()


def is_right(completion: str, answer: str) -> bool:
    """Whether a completion begins with the answer as a whole: what follows does not go on with its last word.

    A word goes on with letters, digits and underscores, a number with decimals too. Chinese and Japanese characters
    end a word and go on with none: after 巴黎 and before 岁 anything may stand.
    """
    completion, answer = completion.strip(), answer.strip()
    return completion.startswith(answer) and _ends(answer, completion[len(answer) :])


def names(said: str, answer: str) -> bool:
    """Whether an answer stands anywhere in what was said, as a whole in the same sense at both ends."""
    return place_of(said, answer) is not None


def place_of(said: str, answer: str) -> int | None:
    """Where an answer first stands as a whole in what was said."""
    said, answer = nfkc(said).casefold(), nfkc(answer).casefold().strip()
    for found in re.finditer(re.escape(answer), said):
        before, rest = said[: found.start()], said[found.end() :]
        if _ends(answer, rest) and (not before or has_unspaced(answer[0]) or not _joins(before, answer)):
            return found.start()
    return None


def _ends(answer: str, rest: str) -> bool:
    """Whether the answer's last word or number is over before the rest."""
    if not rest or has_unspaced(answer[-1]) or has_unspaced(rest[0]):
        return True
    decimals = answer[-1].isdigit() and re.match(r"[.,]\d", rest)
    return not (rest[0].isalnum() or rest[0] == "_" or decimals)


def _joins(before: str, answer: str) -> bool:
    """Whether what stands before goes on into the answer."""
    if has_unspaced(before[-1]):
        return False
    decimals = answer[0].isdigit() and re.search(r"\d[.,]$", before)
    return before[-1].isalnum() or before[-1] == "_" or bool(decimals)
