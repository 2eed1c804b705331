"""Which images to query if money does not suffice for all: a diverse set on frozen features, shared by domains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import Indices

WIDTH = 128  # dimensions of a random projection, to which wider features are reduced
ITERATIONS = 8  # of k-means
CHUNK = 4096  # rows compared with all centres at once
Floats = NDArray[np.float32]


def shares_of(groups: NDArray[np.int64], count: int, taken: NDArray[np.bool_] | None = None) -> dict[int, int]:
    """How many images of each group to choose, so that the groups end up as equal as their sizes permit.

    Args:
        groups: [N], the group of each image.
        count: images to choose in all, at most those that are not taken.
        taken: [N], images that are chosen already; None if there are none.

    Returns:
        The number of further images by group. The sum is `count`.
    """
    taken = np.zeros(len(groups), bool) if taken is None else taken
    names = [int(name) for name in np.unique(groups)]
    have = {name: int((taken & (groups == name)).sum()) for name in names}
    free = {name: int((~taken & (groups == name)).sum()) for name in names}
    shares = dict.fromkeys(names, 0)
    for _ in range(min(count, sum(free.values()))):
        name = min((n for n in names if shares[n] < free[n]), key=lambda n: have[n] + shares[n])
        shares[name] += 1
    return shares


def at_random(groups: NDArray[np.int64], count: int, seed: int = 0, taken: NDArray[np.bool_] | None = None) -> Indices:
    """Choose images of every group at random, as `shares_of` shares them; row numbers, [count], group by group."""
    taken = np.zeros(len(groups), bool) if taken is None else taken
    generator = np.random.default_rng(seed)
    shares = shares_of(groups, count, taken).items()
    parts = [generator.permutation(np.flatnonzero(~taken & (groups == name)))[:share] for name, share in shares]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def diverse(
    features: NDArray[np.floating],
    groups: NDArray[np.int64],
    count: int,
    *,
    seed: int = 0,
    taken: NDArray[np.bool_] | None = None,
) -> Indices:
    """Choose images that represent the features of every group: the images closest to the centres of k-means.

    A group has as many clusters as images to choose and taken images together. Clusters with a taken image are
    represented already. Of the others, the largest come first (similar to TypiClust, Hacohen et al., 2022). If there
    are too few, the images that are least similar to those chosen follow. The groups take turns, so any first part of
    the result is shared as evenly. Similarity is the cosine of the centred features. Features wider than `WIDTH` are
    reduced by a seeded random projection, which changes a cosine by about 0.09.

    Args:
        features: [N, F], e.g. of the frozen student.
        groups: [N], the group of each image, such as its domain.
        count: images to choose, at most those that are not taken.
        seed: of the clusters and of the projection.
        taken: [N], images that are chosen already; None if there are none.

    Returns:
        Row numbers, [count], in the order of choice.
    """
    taken = np.zeros(len(groups), bool) if taken is None else taken
    generator, directions = np.random.default_rng(seed), _directions(features, seed)
    chosen: dict[int, list[int]] = {}
    for name, share in shares_of(groups, count, taken).items():
        rows = np.flatnonzero(groups == name)
        chosen[name] = [int(rows[i]) for i in _representatives(directions[rows], taken[rows], share, generator)]
    have = {name: int((taken & (groups == name)).sum()) for name in chosen}
    turns = sorted((have[name] + i, name, row) for name, rows in chosen.items() for i, row in enumerate(rows))
    return np.array([row for *_, row in turns], np.int64)


def k_centre(features: NDArray[np.floating], count: int, *, seed: int = 0) -> Indices:
    """Choose images that cover all others (Gonzalez, 1985): each is the least similar to those chosen before it.

    Args:
        features: [N, F], e.g. of the student. Similarity is the cosine of the centred rows.
        count: images to choose, from 1 to N.
        seed: of the first image.

    Returns:
        Row numbers in the order of choice, [count].
    """
    chosen = np.zeros(len(features), bool)
    first = int(np.random.default_rng(seed).integers(len(features)))
    chosen[first] = True
    return np.array([first, *_least_similar(_directions(features), chosen, count - 1)], np.int64)


def _directions(features: NDArray[np.floating], seed: int | None = None) -> Floats:
    """Centred features of length one, [N, F]. With a seed, wide ones are reduced to [N, WIDTH]."""
    x = np.asarray(features, np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
    if seed is not None and x.shape[1] > WIDTH:
        x = x @ np.random.default_rng([seed, 1]).standard_normal((x.shape[1], WIDTH), np.float32)
    found: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found


def _representatives(
    directions: Floats, taken: NDArray[np.bool_], count: int, generator: np.random.Generator
) -> list[int]:
    """Row numbers of `count` images in the order of choice."""
    if not count:
        return []
    centres = _clusters(directions, count + int(taken.sum()), generator)
    nearest, distance = _nearest(directions, centres)
    free = np.setdiff1d(nearest, nearest[taken])
    sizes = np.bincount(nearest, minlength=len(centres))
    chosen = list[int]()
    for cluster in free[np.argsort(-sizes[free], kind="stable")][:count]:
        rows = np.flatnonzero(nearest == cluster)
        chosen.append(int(rows[distance[rows].argmin()]))
    out = taken.copy()
    out[chosen] = True
    return chosen + _least_similar(directions, out, count - len(chosen))


def _clusters(x: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Centres of k-means, [at most `count`, F], begun as in k-means++ (Arthur and Vassilvitskii, 2007)."""
    rows = [int(generator.integers(len(x)))]
    distance = np.square(x - x[rows[0]]).sum(axis=1)
    while len(rows) < count and distance.max() > 1e-9:
        weights = distance.astype(np.float64)
        rows.append(int(generator.choice(len(x), p=weights / weights.sum())))
        distance = np.minimum(distance, np.maximum(2 - 2 * (x @ x[rows[-1]]), 0))
        distance[rows[-1]] = 0
    centres = x[rows]
    for _ in range(ITERATIONS):
        nearest, _ = _nearest(x, centres)
        sizes = np.bincount(nearest, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, x)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres).astype(np.float32)
    return centres


def _nearest(x: Floats, centres: Floats) -> tuple[Indices, Floats]:
    """The closest centre of each row, [N], and the squared distance to it up to a constant of the row, [N]."""
    squares, found, distances = np.square(centres).sum(axis=1), [], []
    for start in range(0, len(x), CHUNK):
        part = squares - 2 * (x[start : start + CHUNK] @ centres.T)
        found.append(part.argmin(axis=1))
        distances.append(part.min(axis=1))
    return np.concatenate(found), np.concatenate(distances)


def _least_similar(directions: Floats, chosen: NDArray[np.bool_], count: int) -> list[int]:
    """`count` further row numbers; each is the least similar to its most similar chosen image (Gonzalez, 1985)."""
    if not count:
        return []
    near = np.full(len(directions), -np.inf, np.float32)
    for row in np.flatnonzero(chosen):
        np.maximum(near, directions @ directions[row], out=near)
    out, rows = chosen.copy(), list[int]()
    for _ in range(count):
        rows.append(int(np.where(out, np.inf, near).argmin()))
        np.maximum(near, directions @ directions[rows[-1]], out=near)
        out[rows[-1]] = True
    return rows
