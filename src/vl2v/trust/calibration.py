"""Temperature scaling (Guo et al., ICML 2017), reliability tables and ECE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
LEAST, GREATEST = 0.01, 100.0  # temperatures; logits at a teacher's scale ask for about 0.1 to 10
HALVINGS = 60  # of the interval of log T; far below what a float32 can tell apart


@dataclass(frozen=True)
class Reliability:
    """Answers sorted by confidence into bins of equal width.

    Attributes:
        edges: [bins + 1] from 0 to 1; a bin holds its lower edge, the last both.
        confidence: [bins] the mean confidence, 0 in an empty bin.
        accuracy: [bins] the share that is right, 0 in an empty bin.
        count: [bins] int64, how many answers.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error in [0, 1], Eq. 3 of Guo et al.; 0 without answers."""
        gaps = self.count * np.abs(self.accuracy - self.confidence)
        return float(gaps.sum() / max(int(self.count.sum()), 1))


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Sort answers by their confidence.

    Args:
        probabilities: [N, K], rows summing to 1, N from 0.
        labels: [N] int, the right class.
        bins: how many, at least 1.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    right = (rows.argmax(axis=1) == np.asarray(labels)).astype(np.float64)
    confidence = rows.max(axis=1)
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.maximum(count, 1)
    sums = (np.bincount(place, weights=values, minlength=bins) / filled for values in (confidence, right))
    mean_confidence, accuracy = sums
    return Reliability(np.linspace(0, 1, bins + 1), mean_confidence, accuracy, count)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature of least negative log-likelihood, within `LEAST` and `GREATEST`.

    The likelihood's logarithm is concave in 1/T, so its slope changes sign once and halving the interval finds where.
    Labels are smoothed by 1 / (N + 2) as Platt's scaling does: a few images, all of them right, would otherwise ask
    for certainty. One class, or no image, leaves 1.

    Args:
        logits: [N, K] finite, of validation images of the sources.
        labels: [N] int.
    """
    rows = np.asarray(logits, dtype=np.float64)
    count, classes = rows.shape
    if not count or classes < 2:
        return 1.0
    rows = rows - rows.max(axis=1, keepdims=True)
    smooth = 1 / (count + 2)
    wanted = (1 - smooth) * rows[np.arange(count), np.asarray(labels)].mean() + smooth * rows.mean()
    low, high = np.log(LEAST), np.log(GREATEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        powers = np.exp(rows / np.exp(middle))
        expected = ((powers * rows).sum(axis=1) / powers.sum(axis=1)).mean()
        low, high = (middle, high) if expected > wanted else (low, middle)
    return float(np.clip(np.exp((low + high) / 2), LEAST, GREATEST))
