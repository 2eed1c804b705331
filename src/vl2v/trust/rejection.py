"""Rejection thresholds by coverage, and risk-coverage curves (Geifman and El-Yaniv, NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_runtime.trust import CONFIDENCE, Trust

COVERAGES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class RiskCoverage:
    """Risk-coverage curve: one point per distinct score, from the strictest threshold to none.

    Attributes:
        coverage: [P] share of accepted images, increasing to 1.
        risk: [P] error rate of the accepted images. The last value is the error rate of all images.
        threshold: [P] lowest accepted score, decreasing.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve (AURC) in [0, 1]: the mean risk over all coverages. Lower is better."""
        return float((np.diff(self.coverage, prepend=0.0) * self.risk).sum())

    def at(self, coverage: float) -> float:
        """Return the risk at the strictest threshold with at least this coverage, in (0, 1]."""
        return float(self.risk[np.searchsorted(self.coverage, coverage - 1e-12)])


def risk_coverage(scores: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Compute the risk-coverage curve.

    Args:
        scores: [N] finite, higher for more confident predictions. N is at least 1.
        correct: [N] bool, whether the prediction is correct.

    Raises:
        ValueError: if there are no images, or the lengths differ.
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise ValueError(
            f"expected [N] scores and [N] predictions, N at least 1; found {values.shape} and {right.shape}"
        )
    order = np.argsort(-values, kind="stable")
    descending = values[order]
    wrong = np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    return RiskCoverage((ends + 1) / len(values), wrong[ends] / (ends + 1), descending[ends])


@dataclass(frozen=True)
class Threshold:
    """A confidence threshold, and its coverage and risk on some images.

    Attributes:
        target: coverage on the validation images of the source domains, for which the threshold was fitted.
        threshold: lowest accepted confidence, in [0, 1].
        risk: error rate of the accepted images. NaN if there are none.
    """

    target: float
    threshold: float
    coverage: float
    risk: float


def apply_thresholds(trust: Trust, logits: ArrayLike, correct: ArrayLike) -> tuple[Threshold, ...]:
    """Measure coverage and risk of every confidence threshold on some images.

    Args:
        logits: [N, K], not divided by the temperature. N is at least 1.
        correct: [N] bool, whether the prediction is correct.
    """
    scores, right, results = trust.scores(logits), np.asarray(correct, dtype=bool), []
    for target in trust.coverages:
        threshold = trust.threshold(CONFIDENCE, target)
        passed = scores >= threshold
        risk = float(1 - right[passed].mean()) if passed.any() else float("nan")
        results.append(Threshold(target, threshold, float(passed.mean()), risk))
    return tuple(results)


def thresholds(scores: ArrayLike, coverages: Sequence[float] = COVERAGES) -> dict[float, float]:
    """Return, for each coverage, the highest threshold that at least this share of the [N] scores reaches.

    N is at least 1.
    """
    descending = -np.sort(-np.asarray(scores, dtype=np.float64))
    last = len(descending) - 1
    return {c: float(descending[min(int(np.ceil(c * len(descending) - 1e-9)) - 1, last)]) for c in coverages}
