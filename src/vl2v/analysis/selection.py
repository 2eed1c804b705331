"""Select a diverse set of images to query, if the budget does not cover all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import Indices

WIDTH = 128  # dimensions to which wider features are reduced by a random projection
ITERATIONS = 8  # iterations of k-means
CHUNK = 4096  # rows per block that is compared with all centres
Floats = NDArray[np.float32]


def shares_of(groups: NDArray[np.int64], count: int, selected: NDArray[np.bool_]) -> dict[int, int]:
    """Return how many images of each group to select, so that the groups are as equal as their sizes allow.

    Args:
        groups: [N], group of each image.
        count: number of images to select, at most the number that are not selected yet.
        selected: [N], whether an image is already selected.

    Returns:
        The number of further images by group, with the sum `count`.
    """
    names = [int(name) for name in np.unique(groups)]
    have = {name: int((selected & (groups == name)).sum()) for name in names}
    free = {name: int((~selected & (groups == name)).sum()) for name in names}
    shares = dict.fromkeys(names, 0)
    for _ in range(min(count, sum(free.values()))):
        name = min((n for n in names if shares[n] < free[n]), key=lambda n: have[n] + shares[n])
        shares[name] += 1
    return shares


def at_random(groups: NDArray[np.int64], count: int, seed: int, selected: NDArray[np.bool_]) -> Indices:
    """Select images of every group at random, in numbers of `shares_of`. Returns row indices, [count], by group."""
    generator = np.random.default_rng(seed)
    shares = shares_of(groups, count, selected).items()
    parts = [generator.permutation(np.flatnonzero(~selected & (groups == name)))[:share] for name, share in shares]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def diverse(
    features: NDArray[np.floating],
    groups: NDArray[np.int64],
    count: int,
    *,
    seed: int = 0,
    selected: NDArray[np.bool_] | None = None,
) -> Indices:
    """Select images that represent the features of every group: those closest to the centres of k-means.

    A group has as many clusters as images to select and selected images together. Clusters with a selected image are
    represented already. Of the others, the largest come first (similar to TypiClust, Hacohen et al., 2022). If there
    are too few, the images that are least similar to the selected ones follow. The groups take turns, so any prefix of
    the result is divided as evenly. Similarity is the cosine of the centred features. Features wider than `WIDTH` are
    reduced by a seeded random projection, which changes a cosine by about 0.09.

    Args:
        features: [N, F], e.g. of the frozen student.
        groups: [N], group of each image, such as its domain.
        count: number of images to select, at most the number that are not selected yet.
        seed: seed of the clusters and of the projection.
        selected: [N], whether an image is already selected; None if none is.

    Returns:
        Row indices, [count], in the order of selection.
    """
    selected = np.zeros(len(groups), bool) if selected is None else selected
    generator, directions = np.random.default_rng(seed), _directions(features, seed)
    selection: dict[int, list[int]] = {}
    for name, share in shares_of(groups, count, selected).items():
        rows = np.flatnonzero(groups == name)
        selection[name] = [int(rows[i]) for i in _representatives(directions[rows], selected[rows], share, generator)]
    counts = {name: int((selected & (groups == name)).sum()) for name in selection}
    turns = sorted((counts[name] + i, name, row) for name, rows in selection.items() for i, row in enumerate(rows))
    return np.array([row for *_, row in turns], np.int64)


def k_centre(features: NDArray[np.floating], count: int, *, seed: int = 0) -> Indices:
    """Select images that cover all others (Gonzalez, 1985): each is the least similar to those selected before it.

    Args:
        features: [N, F], e.g. of the student. Similarity is the cosine of the centred rows.
        count: number of images to select, from 1 to N.
        seed: seed of the first image.

    Returns:
        Row indices, [count], in the order of selection.
    """
    selected = np.zeros(len(features), bool)
    first = int(np.random.default_rng(seed).integers(len(features)))
    selected[first] = True
    return np.array([first, *_least_similar(_directions(features), selected, count - 1)], np.int64)


def _directions(features: NDArray[np.floating], seed: int | None = None) -> Floats:
    """Return centred features of length one, [N, F]. With a seed, wide ones are reduced to [N, WIDTH]."""
    x = np.asarray(features, np.float32)
    x = x - x.mean(axis=0, dtype=np.float64).astype(np.float32)
    if seed is not None and x.shape[1] > WIDTH:
        x = x @ np.random.default_rng([seed, 1]).standard_normal((x.shape[1], WIDTH), np.float32)
    directions: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return directions


def _representatives(
    directions: Floats, selected: NDArray[np.bool_], count: int, generator: np.random.Generator
) -> list[int]:
    """Return the row indices of `count` images in the order of selection."""
    if not count:
        return []
    centres = _clusters(directions, count + int(selected.sum()), generator)
    nearest, distance = _nearest(directions, centres)
    free = np.setdiff1d(nearest, nearest[selected])
    sizes = np.bincount(nearest, minlength=len(centres))
    selection = list[int]()
    for cluster in free[np.argsort(-sizes[free], kind="stable")][:count]:
        rows = np.flatnonzero(nearest == cluster)
        selection.append(int(rows[distance[rows].argmin()]))
    out = selected.copy()
    out[selection] = True
    return selection + _least_similar(directions, out, count - len(selection))


def _clusters(x: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Return centres of k-means, [at most `count`, F], initialised by k-means++ (Arthur and Vassilvitskii, 2007)."""
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
    """Return the nearest centre of each row, [N], and the squared distance up to a constant of the row, [N]."""
    squares, nearest, distances = np.square(centres).sum(axis=1), [], []
    for start in range(0, len(x), CHUNK):
        part = squares - 2 * (x[start : start + CHUNK] @ centres.T)
        nearest.append(part.argmin(axis=1))
        distances.append(part.min(axis=1))
    return np.concatenate(nearest), np.concatenate(distances)


def _least_similar(directions: Floats, selected: NDArray[np.bool_], count: int) -> list[int]:
    """Return `count` further rows, each the least similar to its most similar selected image (Gonzalez, 1985)."""
    if not count:
        return []
    near = np.full(len(directions), -np.inf, np.float32)
    for row in np.flatnonzero(selected):
        np.maximum(near, directions @ directions[row], out=near)
    out, rows = selected.copy(), list[int]()
    for _ in range(count):
        rows.append(int(np.where(out, np.inf, near).argmin()))
        np.maximum(near, directions @ directions[rows[-1]], out=near)
        out[rows[-1]] = True
    return rows
