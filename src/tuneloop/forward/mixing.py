"""Which rows of which source an epoch is made of, where it is not simply all rows once.

A source with n rows is an endless sequence: one seeded permutation of its rows after another. An epoch with c of them
takes the next c places, so every row comes before any comes again, over epochs too, and an epoch's rows follow from
its number alone. Knows nothing of files of data; what a mix is travels from `prepare` to `tune` as mix.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneloop.core import jsonl
from tuneloop.core.errors import DataError

FILE = "mix.json"
_VERSION = 1


@dataclass(frozen=True)
class Mix:
    """How epochs are drawn. Sources are named as in the rows' `origin.source`; their order is the recipe's."""

    names: Mapping[str, str]
    """Source: what people call it. The place of a source in this mapping seeds its permutations."""
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Source: relative share of the rows beside the replayed ones; empty: shares follow from the sizes."""
    temperature: float = 1.0
    """Without weights a source of n rows has a share in proportion to n^(1/temperature) (XLM-R, arXiv:1911.02116)."""
    replay: str | None = None
    """The source whose rows are `ratio` of each epoch."""
    ratio: float = 0.0
    epoch_rows: int | None = None
    """Rows of an epoch; None: as many as the sources beside the replayed one have, plus the replayed rows."""


def write(mix: Mix, folder: Path) -> None:
    """Writes mix.json into a folder."""
    jsonl.write(folder / FILE, {"version": _VERSION, **asdict(mix)})


def read(folder: Path) -> Mix | None:
    """The mix of a folder of prepared rows; None where an epoch is all rows once."""
    path = folder / FILE
    if not path.is_file():
        return None
    value = jsonl.read(path)
    if not isinstance(value, dict) or value.pop("version", None) != _VERSION:
        raise DataError(f"{path}: not a mix as this version of `tuneloop prepare` writes it; prepare again")
    return Mix(**value)


def epoch_counts(sizes: Mapping[str, int], mix: Mix) -> dict[str, int]:
    """Rows of each source in every epoch; they add up to the epoch's rows exactly.

    Each is its share of the epoch rounded down or up; a source whose share is less than one row gets one, taken from
    the largest, for it would never be seen. Raises DataError where a share is asked for of a source without rows.
    """
    shares = {source: _share(source, sizes, mix) for source in mix.names}
    beside = sum(sizes[source] for source, share in shares.items() if share > 0)
    _check_rows(sizes, mix, beside)
    if mix.epoch_rows is None:
        replayed = max(1, round(beside * mix.ratio / (1 - mix.ratio))) if mix.replay else 0
        total = beside + replayed
    else:
        replayed = max(1, round(mix.epoch_rows * mix.ratio)) if mix.replay else 0
        total = mix.epoch_rows
    if total - replayed < sum(share > 0 for share in shares.values()):
        raise DataError(
            f"data.mix: an epoch of {total:,} rows, {replayed:,} of them replayed, has no room for a row of each "
            "source with a share; raise data.mix.epoch_rows or leave sources out"
        )
    counts = dict(zip(shares, _apportion(total - replayed, list(shares.values())), strict=True))
    return counts | ({mix.replay: replayed} if mix.replay else {})


def _check_rows(sizes: Mapping[str, int], mix: Mix, beside: int) -> None:
    weighed = [source for source, weight in mix.weights.items() if weight > 0]
    empty = [mix.names[source] for source in (*weighed, *([mix.replay] if mix.replay else [])) if sizes[source] == 0]
    if empty or beside == 0:
        raise DataError(
            f"data.mix: no row of {', '.join(empty) or 'any source beside the replayed one'} is left to train on, so "
            "the share cannot be drawn. dropped.jsonl of the prepare and tune runs says where they went; or leave it "
            "out of the mix"
        )


def _share(source: str, sizes: Mapping[str, int], mix: Mix) -> float:
    """Relative share among the sources beside the replayed one."""
    if source == mix.replay or sizes[source] == 0:
        return 0.0
    if mix.weights:
        return mix.weights[source]
    # as a ratio to the largest: n^(1/T) itself overflows for small T
    return float((sizes[source] / max(sizes.values())) ** (1 / mix.temperature))


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, by largest remainders, then at least 1 for every share above 0."""
    scaled = np.asarray(shares) / max(shares)  # sums of very large weights are infinite
    quotas = total * (scaled / scaled.sum())
    counts = np.floor(quotas).astype(np.int64)
    largest = np.argsort(counts - quotas, kind="stable")  # the stable sort breaks ties by the order of the sources
    counts[largest[: total - int(counts.sum())]] += 1
    for starved in np.flatnonzero((np.asarray(shares) > 0) & (counts == 0)):
        counts[np.argmax(counts)] -= 1
        counts[starved] = 1
    return counts.tolist()


def draw(size: int, count: int, epoch: int, seed: int, source: int) -> NDArray[np.int64]:
    """Places epoch · count … (epoch + 1) · count of the endless sequence of a source with `size` rows."""

    def permutation(number: int) -> NDArray[np.int64]:
        # the last word is never 0: numpy pads seeds with zeros, and [seed, epoch] shuffles the epoch as a whole
        return np.random.default_rng([seed, number, source + 1]).permutation(size)

    first, start = divmod(epoch * count, size)
    last, end = divmod((epoch + 1) * count, size)
    if first == last:
        return permutation(first)[start:end]
    between = np.tile(np.arange(size), last - first - 1)  # whole passes within one epoch: their order does not matter
    return np.concatenate([permutation(first)[start:], between, permutation(last)[:end]])


@dataclass(frozen=True)
class Mixture:
    """The rows of a training set by source, and how many of each an epoch has."""

    rows: Mapping[str, NDArray[np.int64]]
    """Name of a source: numbers of its rows in the training set."""
    counts: Mapping[str, int]
    """Name of a source: its rows in every epoch."""
    seed: int

    @classmethod
    def of(cls, mix: Mix, sources: Sequence[str], seed: int) -> Mixture:
        """The mixture of a training set whose row i comes from sources[i]. Raises DataError as `epoch_counts` does."""
        places = {source: place for place, source in enumerate(mix.names)}
        unknown = next((source for source in sources if source not in places), None)
        if unknown is not None:
            raise DataError(f"{FILE} does not know the source {unknown} of a training row; prepare the data again")
        origins = np.fromiter((places[source] for source in sources), np.int32, len(sources))
        rows = {source: np.flatnonzero(origins == place) for source, place in places.items()}
        counts = epoch_counts({source: len(own) for source, own in rows.items()}, mix)
        return cls(
            {mix.names[source]: own for source, own in rows.items()},
            {mix.names[source]: count for source, count in counts.items()},
            seed,
        )

    def __len__(self) -> int:
        """Rows of an epoch."""
        return sum(self.counts.values())

    def plan_epoch(self, epoch: int) -> list[int]:
        """Row numbers of an epoch in ascending order; a row that comes twice stands twice."""
        drawn = [
            own[draw(len(own), self.counts[name], epoch, self.seed, number)]
            for number, (name, own) in enumerate(self.rows.items())
            if self.counts[name]
        ]
        return np.sort(np.concatenate(drawn)).tolist()

    def in_words(self, supervised: Sequence[int]) -> str:
        """What an epoch is made of, for people; `supervised` are the supervised tokens of each row of the set.

        They are told by source because it is they that the loss counts: one row in ten with long answers may be nine
        tenths of what is learnt.
        """
        parts: list[str] = []
        for name, own in self.rows.items():
            count, size = self.counts[name], len(own)
            times = f", each {count / size:.3g} times" if count > size else ""
            parts.append(f"{count:,} of {name} (of {size:,}{times})")
        tokens = np.asarray(supervised)
        learnt = {name: self.counts[name] * tokens[own].mean() for name, own in self.rows.items() if self.counts[name]}
        shares = ", ".join(f"{name} {part / sum(learnt.values()):.0%}" for name, part in learnt.items())
        return f"{len(self):,} rows: {', '.join(parts)}, drawn anew each epoch; supervised tokens: {shares}"
