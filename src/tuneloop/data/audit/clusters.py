"""Vectors of length 1 in clusters, and how varied they are. Knows nothing of what the vectors stand for.

Spherical k-means (Dhillon & Modha 2001) from k-means++ (Arthur & Vassilvitskii 2007), the best of some starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS_EACH = 20  # of a cluster on average
MOST = 50
STARTS = 4
ROUNDS = 50


@dataclass(frozen=True)
class Clusters:
    """Clusters of N vectors, the largest first. `of` [N]: the cluster of each; `centre` [K]: its most central vector.

    `alike` [K]: mean cosine of its vectors to their direction, 1 where all say the same.
    """

    of: np.ndarray
    centre: np.ndarray
    alike: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.of, minlength=len(self.centre))


def clusters(vectors: np.ndarray, seed: int = 0) -> Clusters:
    """Clusters of float [N, D] vectors of length 1, ROWS_EACH of them in each on average, MOST at most."""
    many = int(np.clip(len(vectors) // ROWS_EACH, 1, MOST))
    draw = np.random.default_rng(seed)
    _, of, means = max((_kmeans(vectors, many, draw) for _ in range(STARTS)), key=lambda found: found[0])
    sizes = np.bincount(of, minlength=many)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]  # equal vectors leave clusters empty
    rank = np.zeros(many, np.int64)
    rank[order] = np.arange(len(order))
    cosine = (vectors * means[of]).sum(1)
    members = [np.flatnonzero(of == cluster) for cluster in order]
    centre = np.array([rows[np.argmax(cosine[rows])] for rows in members], np.int64)
    return Clusters(rank[of], centre, np.array([cosine[rows].mean() for rows in members]))


def vendi(vectors: np.ndarray) -> float:
    """The Vendi score (Friedman & Dieng 2023) with the cosine as kernel: exp of the entropy of the eigenvalues of
    X Xᵀ / N. N for vectors at right angles, 1 for equal ones; at most D.
    """
    values = np.linalg.eigvalsh((vectors.T @ vectors).astype(np.float64) / len(vectors))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _kmeans(vectors: np.ndarray, many: int, draw: np.random.Generator) -> tuple[float, np.ndarray, np.ndarray]:
    """(sum of cosines to the means, the cluster of each vector, the means as directions)."""
    means = _spread(vectors, many, draw)
    of = np.argmax(vectors @ means.T, axis=1)
    for _ in range(ROUNDS):
        sums = np.eye(many, dtype=vectors.dtype)[of].T @ vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        means = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), means)
        again = np.argmax(vectors @ means.T, axis=1)
        if (again == of).all():
            break
        of = again
    return float((vectors * means[of]).sum()), of, means


def _spread(vectors: np.ndarray, many: int, draw: np.random.Generator) -> np.ndarray:
    """Vectors to begin with: each drawn with a chance in proportion to its distance from those before."""
    chosen = [int(draw.integers(len(vectors)))]
    far = np.full(len(vectors), np.inf)
    for _ in range(many - 1):
        far = np.minimum(far, np.clip(1 - vectors @ vectors[chosen[-1]], 0, None).astype(np.float64))
        total = far.sum()
        chosen.append(int(draw.choice(len(vectors), p=far / total if total > 0 else None)))
    return vectors[chosen]
