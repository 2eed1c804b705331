"""Class-balanced sampling: rare classes are drawn more often than their number of images would have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import Indices


def class_shares(counts: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """The probability of each class, in proportion to count ** (1 - balance).

    Args:
        counts: [K] images of each class, at least 1.
        balance: from 0, where all images are equally probable, to 1, where all classes are.

    Returns:
        [K], which sums to 1.
    """
    powers: NDArray[np.float64] = counts.astype(np.float64) ** (1 - balance)
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def expected_draws(labels: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """How often each image is drawn in one pass, on average.

    Args:
        labels: [N] class of each image of a group; a group with unlabelled images (-1) is not balanced.
        balance: see `class_shares`.

    Returns:
        [N], with a mean of 1.
    """
    if not len(labels) or balance == 0 or labels.min() < 0:
        return np.ones(len(labels))
    _, where, counts = np.unique(labels, return_inverse=True, return_counts=True)
    draws: NDArray[np.float64] = (class_shares(counts, balance) * len(labels) / counts)[where]
    return draws


def shuffled_pass(
    labels: NDArray[np.int64] | None, size: int, balance: float, generator: np.random.Generator
) -> Indices:
    """The order of one pass through a group.

    With a balance above 0, the pass is as long as the group, but a class takes as many draws as its probability says;
    the fraction of a draw is decided by chance. Images of a class differ in number of draws by at most one.

    Args:
        labels: [N] class of each image; None, and a group with unlabelled images (-1), is not balanced.
        size: N.
        balance: see `class_shares`; 0 draws each image once.
        generator: of the pass.

    Returns:
        [N] int64 positions in the group.
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
