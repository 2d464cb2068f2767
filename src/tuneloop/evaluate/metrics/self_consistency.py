"""self_consistency: whether the majority of several sampled answers is right, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tuneloop.evaluate.labels import named_labels, normal_label
from tuneloop.evaluate.metrics import Json, Metric, Observation, Sampling, Score
from tuneloop.evaluate.numbers import final_number, is_number

Reading = Literal["number", "label", "text"]


class SelfConsistency(Metric):
    """1 when the most frequent of the sampled answers is the reference (Wang et al. 2022, arXiv 2203.11171).

    Compared is what the answers commit themselves to: the final number (as `numeric_answer` reads it), the one label
    that is named, or the whole text after NFKC in lower case. Of equally frequent ones the first drawn counts; samples
    without a number or label have no vote. How many samples agree stands in the details.
    """

    BETTER = "higher"
    NEEDS = "samples"
    AGGREGATION = "proportion"

    n: int = Field(default=5, ge=2, le=256)
    """Answers sampled for each prompt."""
    temperature: float = Field(default=0.7, gt=0, le=5)
    """Of sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability."""
    seed: int = 0
    """Of the first sample; the others count on from it."""
    read: Literal["auto", "number", "label", "text"] = "auto"
    """What is compared; auto: a number where the reference is one or has the marker, a label where there are few, else
    the text."""
    marker: str = "####"
    """What stands before a final number."""

    @property
    def signature(self) -> str:
        drawn = f"n:{self.n}|temperature:{self.temperature:g}|top_p:{self.top_p:g}|seed:{self.seed}"
        return f"self_consistency|{drawn}|read:{self.read}|marker:{self.marker}|nfkc:yes|case:no|v1"

    @property
    def sampling(self) -> Sampling | None:
        return Sampling(self.n, self.temperature, self.top_p, self.seed)

    def score(self, observation: Observation) -> Score:
        found = self._votes(observation)
        if isinstance(found, str):
            return Score(None, found)
        expected, votes = found
        return Score(float(bool(votes) and votes.most_common(1)[0][0] == expected))

    def details(self, observations: Sequence[Observation], scores: Sequence[Score]) -> Json | None:
        """{"kind": "agreement", "value", "low", "high", "n", "by"}: the mean share of samples in the majority, and for
        each share how many rows have it and how many of these are right."""
        from tuneloop.stats.intervals import bootstrap_mean

        rows: Counter[float] = Counter()
        right: Counter[float] = Counter()
        for observation, score in zip(observations, scores, strict=True):
            found = self._votes(observation)
            if isinstance(found, str) or score.value is None:
                continue
            top = found[1].most_common(1)
            share = top[0][1] / len(observation.samples) if top else 0.0
            rows[share] += 1
            right[share] += int(score.value)
        if not rows:
            return None
        shares = sorted(rows.elements())
        low, high = bootstrap_mean(shares)
        by = [{"share": share, "n": rows[share], "right": right[share]} for share in sorted(rows)]
        value = sum(shares) / len(shares)
        return {"kind": "agreement", "value": value, "low": low, "high": high, "n": len(shares), "by": by}

    def _votes(self, observation: Observation) -> tuple[str, Counter[str]] | str:
        """What the reference says and the samples' votes, or why there are none."""
        if observation.reference is None:
            return "no reference text (a tool call or an empty answer)"
        if not observation.samples:
            return "no samples"
        reading = self._reading(observation)
        expected = self._said(observation.reference, reading, observation.labels)
        if expected is None:
            return f"the reference has no {reading}"
        said = [self._said(sample, reading, observation.labels) for sample in observation.samples]
        return expected, Counter(one for one in said if one is not None)

    def _reading(self, observation: Observation) -> Reading:
        if self.read != "auto":
            return self.read
        reference = observation.reference or ""
        if (self.marker and self.marker in reference) or is_number(reference):
            return "number"
        return "label" if len(observation.labels) > 1 else "text"

    def _said(self, text: str, reading: Reading, labels: Sequence[str]) -> str | None:
        if reading == "number":
            number = final_number(text, self.marker)
            return None if number is None else f"{number.normalize():f}"
        plain = normal_label(text)
        if reading == "text":
            return plain or None
        found = named_labels(plain, {normal_label(label) for label in labels})
        return found.pop() if len(found) == 1 else None
