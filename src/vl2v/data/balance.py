"""Class-balanced sampling: rare classes are drawn more often than in proportion to their number of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import Indices


def class_shares(counts: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return the probability of each class, [K] with sum 1, in proportion to count ** (1 - balance).

    Args:
        counts: [K] number of images of each class, at least 1.
        balance: from 0, where all images are equally probable, to 1, where all classes are.
    """
    powers: NDArray[np.float64] = counts.astype(np.float64) ** (1 - balance)
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def expected_draws(labels: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Return how often each image is drawn in one pass, on average: [N] with mean 1.

    Args:
        labels: [N] class of each image of a group. A group with unlabelled images (-1) is not balanced.
        balance: see `class_shares`.
    """
    if not len(labels) or balance == 0 or labels.min() < 0:
        return np.ones(len(labels))
    _, where, counts = np.unique(labels, return_inverse=True, return_counts=True)
    draws: NDArray[np.float64] = (class_shares(counts, balance) * len(labels) / counts)[where]
    return draws


def shuffled_pass(
    labels: NDArray[np.int64] | None, size: int, balance: float, generator: np.random.Generator
) -> Indices:
    """Return the order of images in one pass through a group, [N] int64 indices.

    A balanced pass has as many draws as the group has images. The number of draws of a class is in proportion to its
    probability, and its fraction is rounded at random. Images of the same class differ by at most one draw.

    Args:
        labels: [N] class of each image. None, and a group with unlabelled images (-1), is not balanced.
        size: number of images, N.
        balance: see `class_shares`; with 0, each image is drawn once.
    """
    if labels is None or balance == 0 or labels.min() < 0:
        return generator.permutation(size)
    _, where, counts = np.unique(labels, return_inverse=True, return_counts=True)
    edges = np.floor(np.cumsum(class_shares(counts, balance)) * size + generator.random()).astype(np.int64)
    edges[-1] = size
    members = np.split(np.argsort(where, kind="stable"), np.cumsum(counts)[:-1])
    rows = []
    for draws, images in zip(np.diff(edges, prepend=0).tolist(), members, strict=True):
        rows += [np.tile(images, draws // len(images)), generator.permutation(images)[: draws % len(images)]]
    return generator.permutation(np.concatenate(rows))
