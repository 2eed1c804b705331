"""A linear probe on frozen features, and its predictions for images that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_runtime.trust import softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

STRENGTHS = (0.1, 1.0, 10.0)  # of the penalty, relative to the mean variance of a feature
FOLDS = 5
TEMPERATURES = np.geomspace(0.01, 2.0, 60)  # candidates for the temperature of a probe's scores


def domain_folds(domains: Labels) -> Labels:
    """Return the fold of each image, [N] int64, so that each fold is one domain."""
    return np.unique(domains, return_inverse=True)[1].astype(np.int64)


def stratified_folds(labels: Labels, units: Labels | None = None, count: int = FOLDS) -> Labels:
    """Return the fold of each image, [N] int64 in [0, count), with the classes divided evenly.

    Args:
        labels: [N] int64.
        units: [N] int64; images of one unit, such as copies of one file or frames of one clip, are in one fold. None
            makes every image its own unit.
    """
    units = np.arange(len(labels)) if units is None else units
    _, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    fold = np.zeros(len(first), np.int64)
    fold[order] = np.arange(len(first)) % count
    return fold[unit_of]


def fit(
    features: NDArray[np.floating], targets: Floats, strengths: Sequence[float] = STRENGTHS
) -> Iterator[tuple[Floats, Floats]]:
    """Fit ridge regressions with an intercept, solved over images or features, whichever are fewer.

    Args:
        features: [N, F].
        targets: [N, K], e.g. one-hot labels.
        strengths: strengths of the penalty, relative to the mean variance of a feature.

    Returns:
        For each strength, weight [F, K] and intercept [K], float64.
    """
    x = np.asarray(features, np.float64)
    mean_x, mean_y = x.mean(axis=0), targets.mean(axis=0)
    x, y = x - mean_x, targets - mean_y
    by_image = x.shape[0] < x.shape[1]
    gram = x @ x.T if by_image else x.T @ x
    scale, right = max(float(np.trace(gram)) / x.shape[1], 1e-12), y if by_image else x.T @ y
    for strength in strengths:
        solved = np.linalg.solve(gram + strength * scale * np.eye(len(gram)), right)
        weight = x.T @ solved if by_image else solved
        yield weight, mean_y - mean_x @ weight


def cross_validated(
    features: NDArray[np.floating],
    labels: Labels,
    folds: Labels,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> Floats:
    """Return the scores of every image by a probe that was fitted on the other folds.

    The strength of the penalty with the most correct predictions is used. With three strengths, the optimism of this
    choice is far below the confidence interval of the accuracy.

    Args:
        features: [N, F].
        labels: [N] in [0, classes).
        folds: [N], at least two different ones; see `domain_folds` and `stratified_folds`.
        classes: number of classes, K.

    Returns:
        [N, K] float64. The largest score is the prediction. A class that the other folds lack scores -inf.

    Raises:
        ValueError: if all images are in one fold.
    """
    if len(np.unique(folds)) < 2:
        raise ValueError("expected at least two folds, found one")
    scores = np.full((len(strengths), len(labels), classes), -np.inf)
    targets = np.eye(classes)[labels]
    for fold in np.unique(folds):
        others, present = folds != fold, np.unique(labels[folds != fold])
        rows, left_out = np.flatnonzero(~others), np.asarray(features[~others], np.float64)
        for i, (weight, intercept) in enumerate(fit(features[others], targets[others], strengths)):
            scores[i][np.ix_(rows, present)] = (left_out @ weight + intercept)[:, present]
    correct = (scores.argmax(axis=2) == labels).sum(axis=1)
    best: Floats = scores[int(correct.argmax())]
    return best


def probabilities(scores: Floats, labels: Labels) -> Floats:
    """Return the softmax of scores [N, K] at the temperature with the highest likelihood of the labels, float64.

    One temperature for all images hardly depends on a single label, so cross-validated scores remain cross-validated.
    """
    options = (softmax(scores / temperature) for temperature in TEMPERATURES)
    rows = np.arange(len(labels))
    return max(options, key=lambda p: float(np.log(np.maximum(p[rows, labels], 1e-9)).mean()))
