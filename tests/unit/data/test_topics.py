"""The likeness of instructions, against the same product by scipy's sparse matrices."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from tuneloop.data.audit import topics as module
from tuneloop.data.audit.topics import BUCKETS, topics

WORDS = st.sampled_from(["name", "three", "colours", "of", "a", "rainbow", "写", "诗", "关于", "春天", "的", "42"])


def by_scipy(texts: list[str]) -> np.ndarray:
    """The cosines, TF-IDF weighted, in single precision."""
    features = [
        sorted({zlib.crc32(feature.encode("utf-8")) % BUCKETS for feature in module._features(text)}) for text in texts
    ]
    rows = [row for row, found in enumerate(features) for _ in found]
    columns = [feature for found in features for feature in found]
    weights = np.log((1 + len(texts)) / (1 + np.bincount(columns, minlength=BUCKETS)))[columns]
    matrix = csr_matrix((weights, (rows, columns)), shape=(len(texts), BUCKETS), dtype=np.float32)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    vectors = csr_matrix(matrix.multiply((1 / np.where(lengths > 0, lengths, 1))[:, None]))
    return (vectors @ vectors.T).toarray()


@given(st.lists(st.lists(WORDS, max_size=8).map(" ".join), min_size=1, max_size=30))
def test_the_cosines_are_those_of_a_sparse_product(texts: list[str]) -> None:
    others = ~np.eye(len(texts), dtype=bool)  # with itself a text is as alike as can be
    assert np.array_equal(module._likenesses(texts)[others], by_scipy(texts)[others])


@given(st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=30))
def test_every_text_is_covered_once_by_the_prototypes(texts: list[str]) -> None:
    found = topics(texts)
    assert sum(found.sizes) == len(texts)
    assert len(set(found.prototypes)) == len(found.prototypes) == len(found.sizes)
    assert all(size > 0 for size in found.sizes)


def test_what_is_alike_is_one_topic() -> None:
    poems, sums = ["write a poem about spring", "write a short poem about spring"], ["what is 42 plus 17"] * 3
    assert topics([*poems, *sums]).sizes == [3, 2]
    assert topics([]).effective == 0
