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
    """Every threshold that a set of scores allows, from the strictest to none; equal scores come in together.

    Attributes:
        coverage: [P] the share of images answered, rising, the last 1.
        risk: [P] the share of wrong answers among them; the last is the error over all images.
        threshold: [P] the least score accepted, falling.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def area(self) -> float:
        """The area under the curve (AURC) in [0, 1], less is better: the mean risk over all coverages."""
        return float((np.diff(self.coverage, prepend=0.0) * self.risk).sum())

    def at(self, coverage: float) -> float:
        """The risk of the strictest threshold that answers at least this share, in (0, 1]."""
        return float(self.risk[np.searchsorted(self.coverage, coverage - 1e-12)])


def risk_coverage(scores: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The risk-coverage curve.

    Args:
        scores: [N] finite, higher is surer, N at least 1.
        correct: [N] bool, whether the answer is right.

    Raises:
        ValueError: if there is no image, or the lengths differ.
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise ValueError(f"expected [N] scores and [N] answers, N at least 1; found {values.shape} and {right.shape}")
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    wrong = np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    return RiskCoverage((ends + 1) / len(values), wrong[ends] / (ends + 1), falling[ends])


@dataclass(frozen=True)
class Threshold:
    """A threshold that would let `aim` of the validation images pass, and what it does on other images.

    Attributes:
        aim: share of the sources' validation images.
        least: confidence, in [0, 1].
        coverage: share of these images that pass.
        risk: share of wrong answers among them; NaN if none passes.
    """

    aim: float
    least: float
    coverage: float
    risk: float


def applied(trust: Trust, logits: ArrayLike, correct: ArrayLike) -> tuple[Threshold, ...]:
    """What each threshold by confidence does.

    Args:
        trust: with thresholds.
        logits: [N, K], before the temperature, N at least 1.
        correct: [N] bool, whether the answer is right.
    """
    scores, right, found = trust.scores(logits), np.asarray(correct, dtype=bool), []
    for aim in trust.coverages:
        least = trust.threshold(CONFIDENCE, aim)
        passed = scores >= least
        risk = float(1 - right[passed].mean()) if passed.any() else float("nan")
        found.append(Threshold(aim, least, float(passed.mean()), risk))
    return tuple(found)


def thresholds(scores: ArrayLike, coverages: Sequence[float] = COVERAGES) -> dict[float, float]:
    """For each coverage, the greatest threshold that at least this share of [N] scores reaches, N at least 1."""
    falling = -np.sort(-np.asarray(scores, dtype=np.float64))
    last = len(falling) - 1
    return {c: float(falling[min(int(np.ceil(c * len(falling) - 1e-9)) - 1, last)]) for c in coverages}
