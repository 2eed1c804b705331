"""Align in closed form: one weighted ridge regression instead of optimiser steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Block = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
"""A block of rows: features [B, F], targets [B, D], weights [B]."""


def term_weights(
    groups: Sequence[NDArray[np.int64]],
    shares: Sequence[int],
    labelled: NDArray[np.bool_],
    draws: NDArray[np.floating] | None = None,
) -> tuple[Floats, Floats]:
    """Return the expected weight of every row in the two terms of the dual loss.

    A batch contains s_g rows of group g, so each of them is drawn s_g / |g| times on average. The image term is the
    mean over all sum_g s_g rows. The text term is the mean over the rows with a label.

    Args:
        groups: row indices of each source domain, then of the unlabelled images. The groups are disjoint.
        shares: s_g, the number of rows of each group in a batch.
        labelled: [R] bool.
        draws: [R], how often a row is drawn relative to its group, with a mean of 1 in each; None is once each.

    Returns:
        a and b, both [R] float64: the weights in the image term and in the text term. Each sums to 1. b is 0 for rows
        without a label, and b is 0 everywhere if no row has a label.
    """
    drawn = np.zeros(len(labelled))
    for rows, share in zip(groups, shares, strict=True):
        drawn[rows] = share / len(rows) * (1.0 if draws is None else draws[rows])
    drawn_labelled = np.where(labelled, drawn, 0.0)
    return drawn / drawn.sum(), drawn_labelled / (drawn_labelled.sum() or 1.0)


def dual_targets(
    teacher_image: NDArray[np.floating],
    teacher_text: NDArray[np.floating],
    image_share: NDArray[np.floating],
    text_share: NDArray[np.floating],
    image_weight: float,
) -> tuple[Floats, Floats]:
    """Return the direction towards which the dual loss pulls each row, and its weight.

    With unit vectors p, I, T and the weights a, b of `term_weights`, the dual loss of arXiv 2310.08255 is, in
    expectation over the batches,

        L = - sum_i p_i . (lambda a_i I_i + (1 - lambda) b_i T_i) = - sum_i m_i cos(p_i, d_i),

    where m_i is the length of the bracket and d_i its direction.

    Args:
        teacher_image: [B, D], I(x), with rows of any length. A zero row has no image term.
        teacher_text: [B, D], T_y. Rows with `text_share` 0 are ignored.
        image_share: a, [B].
        text_share: b, [B].
        image_weight: lambda in [0, 1].

    Returns:
        d [B, D] and m [B], both float64. The rows of d have length one, or are zero if both weights are 0.
    """
    image, text = unit_rows(teacher_image), unit_rows(teacher_text)
    pull = image_weight * image_share[:, None] * image + (1 - image_weight) * text_share[:, None] * text
    return unit_rows(pull), np.linalg.norm(pull, axis=1)


def ridge(blocks: Iterable[Block], strength: float) -> tuple[Floats, Floats]:
    """Fit targets by a linear map with bias, weighted least squares with a penalty on the map and none on the bias.

    It approximates Align: for unit vectors, 2 (1 - cos(p, d)) = |p - d|^2, so the loss of `dual_targets` is, up to a
    constant, half of sum_i m_i |p_i - d_i|^2. Ridge regression drops the condition that p has length one. The problem
    is then convex, and its solution is

        W = (C_xx + alpha 1)^-1 C_xd,   bias = mean(d) - W^T mean(x),

    with means and covariances weighted by m, and alpha = `strength` * trace(C_xx) / F, so that the penalty scales with
    the features. All sums are computed in float64.

    Args:
        blocks: the rows, in blocks of any size. Weights are at least 0, and at least one is above 0.
        strength: above 0, relative to the mean variance of a feature.

    Returns:
        Weight [D, F] and bias [D], float64, in the layout of `torch.nn.Linear`.

    Raises:
        ValueError: if no row has a weight above 0, the strength is not above 0, or all features are constant.
    """
    if not strength > 0:
        raise ValueError(f"expected a ridge strength above 0, found {strength}")
    total, sums = 0.0, None
    for features, targets, weights in blocks:
        x, d, m = (np.asarray(part, dtype=np.float64) for part in (features, targets, weights))
        weighted = x * m[:, None]
        part = (weighted.sum(0), (d * m[:, None]).sum(0), weighted.T @ x, weighted.T @ d)
        sums = part if sums is None else tuple(a + b for a, b in zip(sums, part, strict=True))
        total += float(m.sum())
    if sums is None or not total > 0:
        raise ValueError("expected rows with a weight above 0, found none")
    mean_x, mean_d, square, cross = (value / total for value in sums)
    covariance = square - np.outer(mean_x, mean_x)  # [F, F]
    alpha = strength * np.trace(covariance) / len(covariance)
    if not np.trace(covariance) > 1e-12 * np.trace(square):  # only rounding errors are left
        raise ValueError("expected features that vary, found the same features in every row")
    weight = np.linalg.solve(covariance + alpha * np.eye(len(covariance)), cross - np.outer(mean_x, mean_d))
    return weight.T, mean_d - mean_x @ weight


def refit(
    blocks: Callable[[], Iterable[Block]], weight: NDArray[np.floating], bias: NDArray[np.floating], prior: float
) -> tuple[Floats, Floats]:
    """Fit a linear map with bias again, by ridge regression with a penalty on the distance to the present map.

    The penalty of `ridge` draws the map to zero; this one draws it to the present map c (W_0 x + b_0), where c is the
    factor of least squares. The fewer the images, the less the map changes: the strength is the number of images that
    the present map counts for, divided by the effective number of images, (sum m)^2 / sum m^2.

    Args:
        blocks: returns the rows, in blocks of any size, as for `ridge`. It is called twice.
        weight: W_0, [D, F], and `bias`: b_0, [D], the present map.
        prior: number of images that the present map counts for, above 0.

    Returns:
        Weight [D, F] and bias [D], float64.

    Raises:
        ValueError: as `ridge`, or if the present map is zero.
    """
    agreement = length = total = squares = 0.0
    for x, d, m in blocks():
        present = x @ weight.T + bias
        agreement += float(m @ (present * d).sum(axis=1))
        length += float(m @ (present * present).sum(axis=1))
        total, squares = total + float(m.sum()), squares + float(m @ m)
    if not (length > 0 and squares > 0):
        raise ValueError("expected a map that is not zero, and rows with a weight above 0")
    factor = agreement / length
    residuals = ((x, d - factor * (x @ weight.T + bias), m) for x, d, m in blocks())
    change, shift = ridge(residuals, prior * squares / total**2)
    return factor * weight + change, factor * bias + shift


def unit_rows(rows: NDArray[np.floating]) -> Floats:
    """Scale the rows of [N, D] to length one, in float64; zero rows remain zero."""
    wide = np.asarray(rows, dtype=np.float64)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit
