"""Shingles, signatures, bands and groups: held against plain Python on small sets."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_shingles import plain

from tuneloop.data import compiled, minhash, shingles
from tuneloop.data.union_find import UnionFind

TEXT = st.text(alphabet="ab 的一是é😀\0", max_size=40)
LETTERS = {
    "en": "abcdefghijklmnopqrstuvwxyz    ",
    "zh": "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发",
}


def made(language: str, length: int, chance: random.Random) -> str:
    return "".join(chance.choices(LETTERS[language], k=length))


def edited(text: str, edits: int, language: str, chance: random.Random) -> str:
    out = list(text)
    for _ in range(edits):
        place = chance.randrange(len(out))
        out[place : place + chance.randrange(2)] = made(language, chance.randrange(2), chance)
    return "".join(out)


@given(st.lists(TEXT, max_size=6))
def test_sets_have_one_hash_for_each_shingle(texts: list[str]) -> None:
    assert [len(found) for found in shingles.sets(texts)] == [len(plain(text)) for text in texts]


@given(TEXT, TEXT)
def test_jaccard_is_that_of_the_plain_sets(one: str, other: str) -> None:
    first, second = plain(one), plain(other)
    wanted = len(first & second) / len(first | second) if first and second else 0.0
    assert shingles.jaccard(*shingles.sets([one, other])) == pytest.approx(wanted)


def test_an_edit_weighs_alike_in_chinese_and_english() -> None:
    zh = shingles.jaccard(*shingles.sets(["请问退款一般需要多少天才能到账？", "请问退款一般需要多少日才能到账？"]))
    en = shingles.jaccard(*shingles.sets(["how many days does a refund take", "how many dais does a refund take"]))
    assert abs(zh - en) < 0.1


def test_a_long_text_is_hashed_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["ab", "", *(made(language, length, random.Random(3)) for language in LETTERS for length in (11, 12, 60))]
    monkeypatch.setattr(compiled, "_is_loaded", lambda: False)
    whole, signatures = shingles.sets(texts), minhash.signatures(texts)
    for size in (1, 2, 7, 10):
        monkeypatch.setattr(shingles, "_BLOCK", size)
        assert all(np.array_equal(one, other) for one, other in zip(whole, shingles.sets(texts), strict=True))
        assert np.array_equal(signatures, minhash.signatures(texts))


def test_half_a_surrogate_pair_is_a_character_like_others() -> None:
    one, other = shingles.sets(["abc\ud800defgh", "abc\ud800defgi"])
    assert 0 < shingles.jaccard(one, other) < 1


def test_signatures_are_the_same_on_every_machine_and_in_every_shard() -> None:
    texts = ["The quick brown fox jumps over the lazy dog.", "敏捷的棕色狐狸跳过了懒狗。", "", "hi"]
    found = minhash.signatures(texts)
    assert [int(row.astype(np.uint64) @ np.arange(1, 129, dtype=np.uint64)) for row in found] == GOLDEN
    assert np.array_equal(found, np.concatenate([minhash.signatures([text]) for text in texts]))
    assert minhash.signatures([]).shape == (0, 128)


def test_few_shingles_offer_what_the_empty_bins_would_have_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [("the quick brown fox 敏捷的狐狸跳过懒狗" * 9)[:length] for length in range(0, 300, 7)]
    monkeypatch.setattr(compiled, "_is_loaded", lambda: False)
    found = minhash.signatures(texts)
    for dense in (0, minhash.HASHES + 1):
        monkeypatch.setattr(minhash, "_DENSE", dense)
        assert np.array_equal(minhash.signatures(texts), found)


@pytest.mark.parametrize("language", LETTERS)
@pytest.mark.parametrize(("length", "edits"), [(40, 1), (120, 3), (400, 12)])
def test_pairs_over_the_threshold_share_a_band_and_pass_the_estimate(language: str, length: int, edits: int) -> None:
    chance = random.Random(length)
    ones = [made(language, length, chance) for _ in range(300)]
    others = [edited(text, edits, language, chance) for text in ones]
    first, second = minhash.signatures(ones), minhash.signatures(others)
    alike = np.array([shingles.jaccard(*pair) for pair in zip(shingles.sets(ones), shingles.sets(others), strict=True)])
    near = alike >= 0.7
    assert near.sum() > 100
    assert (minhash.band_keys(first) == minhash.band_keys(second)).any(axis=1)[near].mean() > 0.99
    pairs = np.stack([np.arange(300), np.arange(300, 600)], axis=1)
    nothing = minhash.muted(np.empty(0, np.uint32))
    likely = minhash.may_reach(0.7, np.concatenate((first, second)), pairs, nothing)
    assert likely[near].mean() > 0.99
    apart = minhash.may_reach(0.7, np.concatenate((first, np.roll(second, 1, axis=0))), pairs, nothing)
    assert not apart.any()


def test_muted_hashes_do_not_count() -> None:
    chance = random.Random(5)
    template = made("en", 400, chance)
    texts = [template + made("en", 80, chance) for _ in range(40)]
    found, pairs = minhash.signatures(texts), np.array([[0, row] for row in range(1, 40)])
    shared = shingles.common(shingles.sets(texts), 0.5, 10)
    assert minhash.may_reach(0.6, found, pairs, minhash.muted(shared[:0])).mean() > 0.5
    assert minhash.may_reach(0.6, found, pairs, minhash.muted(shared)).mean() < 0.1


@given(st.lists(st.integers(0, 6), max_size=16))
def test_candidates_are_all_pairs_with_the_same_key_in_small_buckets(keys: list[int]) -> None:
    found = minhash.candidate_pairs(np.array(keys, np.uint32)).tolist()
    wanted = [[i, j] for j in range(len(keys)) for i in range(j) if keys[i] == keys[j]]
    assert sorted(found) == sorted(wanted)


def test_a_giant_bucket_costs_two_pairs_a_row_and_hangs_together() -> None:
    pairs = minhash.candidate_pairs(np.zeros(50_000, np.uint32))
    assert len(pairs) <= 100_000
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
    assert set(pairs[:, 1].tolist()) == set(range(1, 50_000))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))), st.randoms())
def test_groups_are_the_connected_components_in_any_order(pairs: list[tuple[int, int]], chance: random.Random) -> None:
    wanted = [{row} for row in range(10)]
    for one, other in pairs:
        joined = wanted[one] | wanted[other]
        for row in joined:
            wanted[row] = joined
    chance.shuffle(pairs)
    found = UnionFind(10)
    for one, other in pairs:
        found.union(other, one)
    assert found.groups().tolist() == [min(group) for group in wanted] == [found.find(row) for row in range(10)]
    assert UnionFind(0).groups().tolist() == []


def test_ignored_shingles_leave_a_set_unless_nothing_else_is_there() -> None:
    one, two, three = shingles.sets(["abcdefgh", "abcdef", "xyz"])
    assert len(shingles.without(one, two)) == 2
    assert np.array_equal(shingles.without(two, one), two)
    assert np.array_equal(shingles.without(three, one[:0]), three)
    assert len(shingles.common([], 0.5, 1)) == 0
    assert np.array_equal(shingles.common([one, two, three], 0.5, 2), two)


GOLDEN = [1109037, 963839, 0, 734784]
