"""What an epoch is made of: exact counts, the ratio held, every row before any again, all from the epoch's number."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.core.errors import DataError
from tuneloop.forward import mixing
from tuneloop.forward.mixing import Mix, Mixture, draw, epoch_counts
from tuneloop.forward.plan import epoch_steps

sizes_of_sources = st.lists(st.integers(1, 5000), min_size=2, max_size=6)


def named(sizes: list[int]) -> dict[str, int]:
    return {f"s{number}": size for number, size in enumerate(sizes)}


def mix(sizes: dict[str, int], **values: Any) -> Mix:
    return Mix(names={source: f"{source}.jsonl" for source in sizes}, **values)


def rows_of(sizes: dict[str, int]) -> list[str]:
    """The source of each row of a training set in which the sources alternate."""
    waiting = dict(sizes)
    out: list[str] = []
    while any(waiting.values()):
        for source in waiting:
            if waiting[source]:
                waiting[source] -= 1
                out.append(source)
    return out


# -- how many ----------------------------------------------------------------------------------------------------------
@given(sizes=sizes_of_sources, data=st.data())
def test_counts_are_the_shares_to_the_row(sizes: list[int], data: st.DataObject) -> None:
    by_name = named(sizes)
    rows = data.draw(st.none() | st.integers(2 * len(sizes), 100_000))
    weights = data.draw(st.none() | st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    temperature = 1.0 if weights else data.draw(st.floats(0.5, 50))
    given_weights = dict(zip(by_name, weights, strict=True)) if weights else {}
    counts = epoch_counts(by_name, mix(by_name, weights=given_weights, temperature=temperature, epoch_rows=rows))
    total = rows or sum(sizes)
    assert sum(counts.values()) == total
    wanted = given_weights or {source: size ** (1 / temperature) for source, size in by_name.items()}
    quotas = {source: total * weight / sum(wanted.values()) for source, weight in wanted.items()}
    assert all(count >= 1 for count in counts.values())
    if min(quotas.values()) >= 1:
        assert all(abs(counts[source] - quota) < 1 + 1e-6 for source, quota in quotas.items())
    else:  # those who would get none get one, at the cost of the largest
        assert all(counts[source] <= max(1, quota + 1) for source, quota in quotas.items())


@given(sizes=sizes_of_sources, ratio=st.floats(0.01, 0.9), rows=st.none() | st.integers(1000, 100_000))
def test_the_replay_ratio_holds(sizes: list[int], ratio: float, rows: int | None) -> None:
    by_name = named(sizes)
    general = list(by_name)[-1]
    counts = epoch_counts(by_name, mix(by_name, replay=general, ratio=ratio, epoch_rows=rows))
    total = sum(counts.values())
    assert abs(counts[general] - ratio * total) <= 1
    if rows is None:  # the domain's rows come once each, the general ones are added
        assert {**counts, general: 0} == {**by_name, general: 0}
    else:
        assert total == rows


@given(sizes=sizes_of_sources)
def test_shares_by_size_are_every_row_once(sizes: list[int]) -> None:
    by_name = named(sizes)
    assert epoch_counts(by_name, mix(by_name, epoch_rows=sum(sizes))) == by_name


def test_temperature_lifts_small_sources() -> None:
    sizes = {"big": 10_000, "small": 100}
    small = [epoch_counts(sizes, mix(sizes, temperature=t))["small"] for t in (0.5, 1, 2, 5, 1000)]
    assert small == sorted(small) and small[1] == 100
    assert small[2] == round(10_100 * 10 / 110), "p in proportion to the square root: 100 to 10"
    assert abs(small[4] - 5050) < 30, "hot: all sources alike"


def test_a_weight_of_zero_leaves_a_source_out() -> None:
    sizes = {"a": 10, "b": 1000, "c": 30}
    counts = epoch_counts(sizes, mix(sizes, weights={"a": 3, "b": 0, "c": 1}))
    assert counts == {"a": 30, "b": 0, "c": 10}, "an epoch is as large as the sources that take part"


def test_no_source_starves() -> None:
    sizes = {"big": 100_000, "small": 3, "tiny": 1}
    assert epoch_counts(sizes, mix(sizes, epoch_rows=100)) == {"big": 98, "small": 1, "tiny": 1}
    counts = epoch_counts(sizes, mix(sizes, weights={"big": 1e308, "small": 1e308, "tiny": 5e-324}, epoch_rows=9))
    assert counts["tiny"] == 1 and sum(counts.values()) == 9


def test_what_cannot_be_drawn_is_an_error() -> None:
    sizes = {"a": 0, "b": 5, "c": 5}
    with pytest.raises(DataError, match=r"no row of a\.jsonl is left to train on"):
        epoch_counts(sizes, mix(sizes, weights={"a": 1, "b": 1, "c": 1}))
    with pytest.raises(DataError, match=r"no row of a\.jsonl is left"):
        epoch_counts(sizes, mix(sizes, replay="a", ratio=0.1))
    with pytest.raises(DataError, match="any source beside the replayed one"):
        epoch_counts({"a": 0, "b": 5}, mix({"a": 0, "b": 5}, replay="b", ratio=0.1))
    with pytest.raises(DataError, match=r"an epoch of 2 rows, 1 of them replayed, .* raise data\.mix\.epoch_rows"):
        epoch_counts({"a": 9, "b": 5, "c": 5}, mix(sizes, replay="b", ratio=0.1, epoch_rows=2))
    assert epoch_counts(sizes, mix(sizes, weights={"a": 0, "b": 1, "c": 1}))["a"] == 0
    assert epoch_counts(sizes, mix(sizes, temperature=2))["a"] == 0


# -- which -------------------------------------------------------------------------------------------------------------
@given(size=st.integers(1, 50), count=st.integers(1, 130), epochs=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_every_row_comes_before_any_comes_again(size: int, count: int, epochs: int, seed: int) -> None:
    seen: Counter[int] = Counter(dict.fromkeys(range(size), 0))
    for epoch in range(epochs):
        drawn = draw(size, count, epoch, seed, 1)
        assert len(drawn) == count and np.array_equal(drawn, draw(size, count, epoch, seed, 1))
        seen.update(drawn.tolist())
        assert len(seen) == size and max(seen.values()) - min(seen.values()) <= 1


def test_a_small_share_rotates_through_the_whole_source() -> None:
    epochs = [set(draw(1000, 100, epoch, 3, 0).tolist()) for epoch in range(10)]
    assert all(len(epoch) == 100 for epoch in epochs)
    assert set().union(*epochs) == set(range(1000))


def test_epochs_seeds_and_sources_differ() -> None:
    first = draw(1000, 100, 0, 1, 0).tolist()
    others = [draw(1000, 100, 1, 1, 0), draw(1000, 100, 0, 2, 0), draw(1000, 100, 0, 1, 1), draw(1000, 100, 10, 1, 0)]
    assert all(sorted(first) != sorted(other.tolist()) for other in others)


def test_the_draw_is_not_the_shuffle() -> None:
    """numpy pads seeds with zeros: [seed, epoch, 0] would draw the very permutation that shuffles the epoch."""
    (shuffle,) = epoch_steps(50, 50, 9, 0)
    assert all(draw(50, 50, 0, 9, source).tolist() != shuffle for source in range(3))


def test_the_drawn_rows_are_frozen() -> None:
    """A run that is resumed after an upgrade relies on it: numpy's default_rng([seed, pass, source + 1])."""
    assert draw(6, 4, 0, 42, 0).tolist() == [2, 1, 3, 5]
    assert draw(6, 4, 1, 42, 0).tolist() == [0, 4, 3, 5], "the rest of the first pass, then the second"


def test_a_late_epoch_costs_no_more_than_the_first() -> None:
    assert len(draw(1000, 10, 10**12, 5, 0)) == 10


# -- the mixture of a training set -------------------------------------------------------------------------------------
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    ratio=st.floats(0.05, 0.6),
    epoch=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_an_epoch_holds_what_was_said(sizes: list[int], ratio: float, epoch: int, seed: int) -> None:
    by_name = named(sizes)
    sources = rows_of(by_name)
    mixture = Mixture.of(mix(by_name, replay="s0", ratio=ratio), sources, seed)
    rows = mixture.plan_epoch(epoch)
    assert len(rows) == len(mixture) and rows == sorted(rows)
    assert Counter(f"{sources[row]}.jsonl" for row in rows) == Counter(mixture.counts)
    beside = Counter(row for row in rows if sources[row] != "s0")
    assert set(beside.values()) == {1} and len(beside) == sum(sizes[1:])
    assert rows == Mixture.of(mix(by_name, replay="s0", ratio=ratio), sources, seed).plan_epoch(epoch)


def test_in_words() -> None:
    sizes = {"data/support.jsonl": 900, "data/general.jsonl": 52_002}
    names = {source: Path(source).name for source in sizes}
    sources = [source for source, size in sizes.items() for _ in range(size)]
    mixture = Mixture.of(Mix(names, replay="data/general.jsonl", ratio=0.1), sources, 1)
    said = "1,000 rows: 900 of support.jsonl (of 900), 100 of general.jsonl (of 52,002), drawn anew each epoch"
    learnt = [2] * 900 + [162] * 52_002
    assert mixture.in_words(learnt) == said + "; supervised tokens: support.jsonl 10%, general.jsonl 90%"
    often = Mixture.of(
        Mix(names, weights={"data/support.jsonl": 3, "data/general.jsonl": 0}, epoch_rows=1350), sources, 1
    )
    assert often.in_words(learnt) == (
        "1,350 rows: 1,350 of support.jsonl (of 900, each 1.5 times), 0 of general.jsonl (of 52,002), drawn anew each "
        "epoch; supervised tokens: support.jsonl 100%"
    )


def test_rows_of_an_unknown_source() -> None:
    with pytest.raises(DataError, match="does not know the source c of a training row; prepare the data again"):
        Mixture.of(mix({"a": 1, "b": 1}), ["a", "b", "c"], 1)


def test_the_file_and_back(tmp_path: Path) -> None:
    assert mixing.read(tmp_path) is None
    weighed = mix({"b": 1, "a": 2}, weights={"a": 1.5, "b": 0.0})
    replayed = mix({"a": 1, "数据": 2}, temperature=3.0, replay="数据", ratio=0.1, epoch_rows=7)
    for given_mix in (weighed, replayed):
        mixing.write(given_mix, tmp_path)
        again = mixing.read(tmp_path)
        assert again == given_mix and again is not None and list(again.names) == list(given_mix.names)
    stated = json.loads((tmp_path / mixing.FILE).read_text("utf-8"))
    assert stated == {
        "version": 1, "names": {"a": "a.jsonl", "数据": "数据.jsonl"}, "weights": {}, "temperature": 3.0,
        "replay": "数据", "ratio": 0.1, "epoch_rows": 7,
    }  # fmt: skip
    (tmp_path / mixing.FILE).write_text('{"version": 2}')
    with pytest.raises(DataError, match=r"mix\.json: not a mix as this version of `tuneloop prepare` writes it"):
        mixing.read(tmp_path)
