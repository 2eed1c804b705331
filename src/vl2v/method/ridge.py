"""Align in closed form: the projection that one weighted ridge regression gives, in place of Adam's steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Block = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
"""Some rows: features [B, F], targets [B, D], weights [B]."""


def term_weights(
    groups: Sequence[NDArray[np.int64]], shares: Sequence[int], labelled: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """How much every row counts in each of the dual loss's two means, in expectation over the batches.

    A batch holds s_g rows of group g, so a row of it is drawn s_g / |g| times. The image term is the mean over all
    sum_g s_g rows; the text term is the mean over those with a label.

    Args:
        groups: positions of the rows of each source domain, then of the unlabelled images; none twice.
        shares: s_g, rows of each group in a batch.
        labelled: [R].

    Returns:
        a and b, both [R] float64 of sum 1: weights in the image and in the text term; b is 0 where there is no label,
        and everywhere if no row has one.
    """
    drawn = np.zeros(len(labelled))
    for rows, share in zip(groups, shares, strict=True):
        drawn[rows] = share / len(rows)
    told = np.where(labelled, drawn, 0.0)
    return drawn / drawn.sum(), told / (told.sum() or 1.0)


def dual_targets(
    teacher_image: NDArray[np.floating],
    teacher_text: NDArray[np.floating],
    image_share: NDArray[np.floating],
    text_share: NDArray[np.floating],
    image_weight: float,
) -> tuple[Floats, Floats]:
    """The one direction that the dual loss pulls each row towards, and how strongly.

    With unit vectors p, I, T and the weights a, b of `term_weights`, the dual loss of arXiv 2310.08255 is, in
    expectation over the batches,

        L = - sum_i p_i . (lambda a_i I_i + (1 - lambda) b_i T_i) = - sum_i m_i cos(p_i, d_i),

    with m_i the length of the bracket and d_i its direction.

    Args:
        teacher_image: [B, D], I(x), of any length above 0.
        teacher_text: [B, D], T_y; ignored where `text_share` is 0.
        image_share: a, [B].
        text_share: b, [B].
        image_weight: lambda in [0, 1].

    Returns:
        d [B, D], rows of length one (zero where nothing pulls), and m [B], both float64.
    """
    image, text = _unit(teacher_image), _unit(teacher_text)
    pull = image_weight * image_share[:, None] * image + (1 - image_weight) * text_share[:, None] * text
    return _unit(pull), np.linalg.norm(pull, axis=1)


def ridge(blocks: Iterable[Block], strength: float) -> tuple[Floats, Floats]:
    """Fit targets by a linear map with bias, weighted least squares with a penalty on the map and none on the bias.

    Why this stands for Align: for unit vectors 2 (1 - cos(p, d)) = |p - d|^2, so the loss of `dual_targets` is, up to
    a constant, half of sum_i m_i |p_i - d_i|^2. Ridge regression drops the one condition that p has length one, which
    makes the problem convex and its solution

        W = (C_xx + alpha 1)^-1 C_xd,   bias = mean(d) - W^T mean(x),

    with means and covariances weighted by m, and alpha = `strength` * trace(C_xx) / F, so that the penalty follows the
    features' scale. All sums are in float64.

    Args:
        blocks: the rows, in blocks of any size; weights at least 0 and not all 0.
        strength: above 0, relative to the mean variance of a feature.

    Returns:
        Weight [D, F] and bias [D] as `torch.nn.Linear` has them, float64.

    Raises:
        ValueError: if there is no row of weight above 0, the strength is not above 0, or no feature varies.
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
        raise ValueError("expected rows of weight above 0, found none")
    mean_x, mean_d, square, cross = (value / total for value in sums)
    covariance = square - np.outer(mean_x, mean_x)  # [F, F]
    alpha = strength * np.trace(covariance) / len(covariance)
    if not np.trace(covariance) > 1e-12 * np.trace(square):  # all that is left is rounding
        raise ValueError("expected features that vary, found the same ones in every row")
    weight = np.linalg.solve(covariance + alpha * np.eye(len(covariance)), cross - np.outer(mean_x, mean_d))
    return weight.T, mean_d - mean_x @ weight


def _unit(rows: NDArray[np.floating]) -> Floats:
    wide = np.asarray(rows, dtype=np.float64)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit
