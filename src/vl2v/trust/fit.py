"""Fit all trust data of a student on validation images of the source domains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.trust.calibration import fit_temperature, reliability
from vl2v.trust.drift import fit_reference
from vl2v.trust.rejection import thresholds
from vl2v_runtime.trust import SCORES, Trust, probabilities, scores

FEWEST = 50  # minimum number of validation images of a domain that may determine the temperature


def fit(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    domains: NDArray[np.str_],
    embeddings: NDArray[np.float32] | None = None,
    styled_temperature: float | None = None,
) -> Trust | None:
    """Fit temperature, thresholds and drift reference, a deterministic function of the arguments; None without images.

    Args:
        logits: [N, K] finite, of validation images of the source domains, never of a held-out domain.
        labels: [N] int64.
        embeddings: [N, D], with rows of length one. None for a student without a text head.
        styled_temperature: that of `vl2v.evaluation.styles`; the temperature is at least as high.
    """
    if not len(logits):
        return None
    temperature = max(_temperature(logits, labels, domains), styled_temperature or 0)
    before, after = (reliability(probabilities(logits, t), labels).error for t in (1.0, temperature))
    reject = {score: thresholds(scores(logits, score, temperature)) for score in SCORES}
    calibration = {"images": len(logits), "ece_before": before, "ece_after": after}
    answers = logits.argmax(axis=1).astype(np.int64)
    reference = None if embeddings is None else fit_reference(embeddings, domains, answers)
    return Trust(temperature, reject, calibration, reference)


def _temperature(logits: NDArray[np.float32], labels: NDArray[np.int64], domains: NDArray[np.str_]) -> float:
    """Fit the temperature on all images, and on each domain with enough of them; return the highest.

    A student is more overconfident on an unseen domain than on its training domains, see docs/results/trust.md.
    """
    parts = [
        domains == name for name, count in zip(*np.unique(domains, return_counts=True), strict=True) if count >= FEWEST
    ]
    return max(fit_temperature(logits[part], labels[part]) for part in [np.ones(len(logits), np.bool_), *parts])
