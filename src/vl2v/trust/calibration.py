"""Temperature scaling (Guo et al., ICML 2017), reliability tables and ECE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0  # with the logit scale of a teacher, about 0.1 to 10 is usual
HALVINGS = 60  # of the interval of log T, far below the precision of float32


@dataclass(frozen=True)
class Reliability:
    """Reliability table: predictions in bins of equal width by confidence.

    Attributes:
        edges: [bins + 1] from 0 to 1. A bin includes its lower edge, the last bin both edges.
        confidence: [bins] mean confidence, 0 in an empty bin.
        accuracy: [bins] share of correct predictions, 0 in an empty bin.
        count: [bins] int64, number of predictions.
    """

    edges: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error (ECE) in [0, 1], Eq. 3 of Guo et al. It is 0 without predictions."""
        gaps = self.count * np.abs(self.accuracy - self.confidence)
        return float(gaps.sum() / max(int(self.count.sum()), 1))


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Compute the reliability table.

    Args:
        probabilities: [N, K], with rows that sum to 1. N can be 0.
        labels: [N] int, the correct classes.
        bins: number of bins, at least 1.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    correct = (rows.argmax(axis=1) == np.asarray(labels)).astype(np.float64)
    confidence = rows.max(axis=1)
    bin_index = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    filled = np.maximum(count, 1)
    sums = (np.bincount(bin_index, weights=values, minlength=bins) / filled for values in (confidence, correct))
    mean_confidence, accuracy = sums
    return Reliability(np.linspace(0, 1, bins + 1), mean_confidence, accuracy, count)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fit the temperature that minimises the negative log-likelihood, between `MIN_TEMPERATURE` and `MAX_TEMPERATURE`.

    The log-likelihood is concave in 1/T, so its slope changes sign once, and bisection finds the maximum. Labels are
    smoothed by 1 / (N + 2) as in Platt scaling. Without smoothing, a few images that are all classified correctly would
    lead to a confidence of 1.

    Args:
        logits: [N, K] finite, of validation images of the source domains.
        labels: [N] int.

    Returns:
        The temperature. It is 1 if there is only one class or no image.
    """
    rows = np.asarray(logits, dtype=np.float64)
    count, classes = rows.shape
    if not count or classes < 2:
        return 1.0
    rows = rows - rows.max(axis=1, keepdims=True)
    smooth = 1 / (count + 2)
    observed = (1 - smooth) * rows[np.arange(count), np.asarray(labels)].mean() + smooth * rows.mean()
    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        powers = np.exp(rows / np.exp(middle))
        expected = ((powers * rows).sum(axis=1) / powers.sum(axis=1)).mean()
        low, high = (middle, high) if expected > observed else (low, middle)
    return float(np.clip(np.exp((low + high) / 2), MIN_TEMPERATURE, MAX_TEMPERATURE))
