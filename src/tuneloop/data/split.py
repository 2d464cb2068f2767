"""Which row is trained on, watched and tested on. Works on columns of all rows; knows nothing of files.

Rows that belong together are one unit: near-duplicates, equal prompts, children and the rows they were made from. A
unit's place is u = the prompt hash of its first row / 2^64, uniform in [0, 1): test where u < test share, val where
u < test + val share, else train. So nothing straddles, and a place does not depend on the seed nor on other rows.
A unit with a row that must be trained on goes to train as a whole; shares are those of the units that are free.
Chance would leave a stratum (source × label × language × length) of a few dozen units far from its shares. So its units
are gone through in their order, and one goes elsewhere than u says where val or test would have less than half or more
than twice its share so far. What comes later moves nothing: rows appended to any source leave the others in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneloop.data.config import SplitConfig
from tuneloop.data.steps import STEPS, SetStep
from tuneloop.data.union_find import UnionFind

STEP = "split"
TRAIN, VAL, TEST, OUT = 0, 1, 2, -1
MIN_WORDS = 12
"""Shorter prompts and conversations are kept together only where the prompts are equal: a word makes the difference."""
LARGEST, LARGEST_SHARE = 20, 0.1
"""Near-duplicates that are more rows than both (and this share of all) are rows of one template: as one unit they would
all go to one split. They are divided by equal prompts alone, and the card says so."""
LENGTHS = (50, 300)
"""Words of a conversation: up to the first it is short, up to the second medium, beyond long."""


def near() -> list[SetStep]:
    """The steps whose clusters the split keeps together: alike as a whole, and alike in what is asked."""
    options = ({"drop": False, "of": of, "min_words": MIN_WORDS} for of in ("conversation", "prompt"))
    steps = [STEPS.make({"near_duplicates": one}) for one in options]
    return [step for step in steps if isinstance(step, SetStep)]


@dataclass(frozen=True)
class Columns:
    """What the split reads of N rows, in the order of the sources; then those of own val files, then of own test files.

    `group` [N]: 0 for sources, 1 and 2 for own val and test files. `source` [N]: a number for each source.
    `clusters`, each [N]: equal for near-duplicates. `train_only` [N]: rows of sources that must be trained on.
    `parents`: the ids that a row was made from, separated by spaces.
    """

    group: np.ndarray
    source: np.ndarray
    train_only: np.ndarray
    id: np.ndarray
    prompt_key: np.ndarray
    clusters: Sequence[np.ndarray]
    parents: np.ndarray
    label: np.ndarray
    language: np.ndarray
    words: np.ndarray


@dataclass(frozen=True)
class Division:
    """`fate` [N]: TRAIN, VAL, TEST or OUT. `unit` [N]: the first row of each row's unit.

    `twins`: a row that had to leave → the row of another split that it repeats, and that split.
    """

    fate: np.ndarray
    unit: np.ndarray
    twins: Mapping[int, tuple[int, str]]
    templates: Sequence[tuple[int, int]]
    """Groups of near-duplicates that were too large to be kept together: (first row, rows)."""
    drawn: np.ndarray
    """Rows of sources that could have gone anywhere, but belong together with one that must be trained on."""


def divide(rows: Columns, shares: SplitConfig, own: Sequence[str]) -> Division:
    """Divides the rows of the sources; `own` names the splits with files of their own, which get no share.

    test keeps all it was given; val leaves out what is in test; train what is in val or test. Where val has a file and
    test is a share, the share yields.
    """
    unit, templates = _units(rows)
    fate = np.full(len(unit), TRAIN, np.int8)
    test_share = 0.0 if "test" in own else shares.test
    val_share = 0.0 if "val" in own else shares.val
    mine = rows.group == 0
    must = np.zeros(len(unit), bool)
    must[unit[rows.train_only]] = True
    heads = np.flatnonzero(mine & (unit == np.arange(len(unit))) & ~must)
    fate[heads] = _places(rows, heads, test_share, val_share)
    fate[mine] = fate[unit[mine]]
    fate[rows.group == 1], fate[rows.group == 2] = VAL, TEST
    twins: dict[int, tuple[int, str]] = {}
    for row, twin in _straddling(rows, unit):
        twins.setdefault(row, twin)
    fate[list(twins)] = OUT
    return Division(fate, unit, twins, templates, np.flatnonzero(mine & must[unit] & ~rows.train_only))


def _units(rows: Columns) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The smallest row of each row's unit; and the groups that were too large to be one, as (first row, size)."""
    apart = _family(rows, ())
    alike = _family(rows, rows.clusters) if rows.clusters else apart
    size = np.bincount(alike, minlength=len(alike))
    large = np.flatnonzero(size > max(LARGEST, LARGEST_SHARE * len(alike)))
    return np.where(np.isin(alike, large), apart, alike), [(row, int(size[row])) for row in large.tolist()]


def _family(rows: Columns, clusters: Sequence[np.ndarray]) -> np.ndarray:
    """Groups by equal prompts, parents and clusters."""
    found = UnionFind(len(rows.id))
    for key in (rows.prompt_key, *clusters):
        for one, other in _same(key):
            found.union(one, other)
    children = np.flatnonzero(rows.parents != "").tolist()
    home: dict[int, int] = {id_: row for row, id_ in enumerate(rows.id.tolist())} if children else {}
    for row in children:
        for parent in rows.parents[row].split():
            found.union(row, home.setdefault(int(parent, 16), row))  # siblings stay together where the parent has left
    return found.groups()


def _same(key: np.ndarray) -> Iterator[tuple[int, int]]:
    """Neighbouring rows with the same key."""
    order = np.argsort(key, kind="stable")
    equal = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    return zip(order[equal].tolist(), order[equal + 1].tolist(), strict=True)


def _places(rows: Columns, heads: np.ndarray, test: float, val: float) -> np.ndarray:
    u = rows.prompt_key[heads].astype(np.float64) / 2**64
    fate = np.where(u < test, TEST, np.where(u < test + val, VAL, TRAIN)).astype(np.int8)
    for stratum in _strata(rows, heads) if test or val else ():
        rank = np.arange(1, len(stratum) + 1)
        tested = _taken(fate[stratum] == TEST, rank, test, 0)
        rest = stratum[~tested]  # test is chosen first and alone, so that it does not depend on val
        watched = _taken(fate[rest] == VAL, rank[~tested], val, 1)
        fate[stratum] = TRAIN
        fate[stratum[tested]], fate[rest[watched]] = TEST, VAL
    return fate


def _strata(rows: Columns, heads: np.ndarray) -> list[np.ndarray]:
    """Positions in `heads` by source × label × language × length, each in the order of the rows."""
    length = np.searchsorted(LENGTHS, rows.words[heads])
    codes = np.zeros(len(heads), np.int64)
    for column in (rows.source[heads], rows.label[heads].astype(str), rows.language[heads], length):
        codes = codes * (len(heads) + 1) + np.unique(column, return_inverse=True)[1]
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []


def _taken(drawn: np.ndarray, rank: np.ndarray, share: float, ahead: int) -> np.ndarray:
    """Which of a stratum's units a split takes: those drawn, as long as it has at least half and at most twice its
    share of the units up to each. `ahead`: by how many units it is early, because the last one may be taken already."""
    there, taken = 0, list[bool]()
    for wants, number in zip(drawn.tolist(), rank.tolist(), strict=True):
        wanted = share * (number + ahead)
        least = math.floor(wanted + 0.5) // 2 or int(wanted >= 1)
        taken.append(there < least or (wants and there < math.ceil(2 * share * number)))
        there += taken[-1]
    return np.array(taken, bool)


def _straddling(rows: Columns, unit: np.ndarray) -> Iterator[tuple[int, tuple[int, str]]]:
    """Rows whose unit also stands in a stronger own file, with the first row there. Only own files divide units."""
    for group, name in ((2, "test"), (1, "val")):
        there = np.flatnonzero(rows.group == group)
        first = np.full(len(unit), -1, np.int64)
        first[unit[there[::-1]]] = there[::-1]
        weaker = np.flatnonzero((rows.group < group if group == 2 else rows.group == 0) & (first[unit] >= 0))
        twins = first[unit[weaker]].tolist()
        yield from ((row, (twin, name)) for row, twin in zip(weaker.tolist(), twins, strict=True))
