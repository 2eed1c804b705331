"""Calibration of a student, and the effect of rejecting the least confident predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet
from vl2v.trust.calibration import Reliability, reliability
from vl2v.trust.fit import fit
from vl2v.trust.rejection import RiskCoverage, Threshold, apply_thresholds, risk_coverage
from vl2v_runtime.trust import Trust, probabilities


@dataclass(frozen=True)
class Calibration:
    """Calibration on the images of one role, before and after temperature scaling.

    Attributes:
        role: ``in-domain``, ``test`` or ``out-of-domain``.
        before: reliability without temperature scaling.
        after: reliability with temperature scaling.
    """

    role: str
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class Rejection:
    """Effect of rejecting uncertain predictions on the images of one role."""

    role: str
    curve: RiskCoverage
    thresholds: tuple[Threshold, ...]


def fitted(predictions: Predictions) -> Trust | None:
    """Fit trust data as a new run does, on validation images of the source domains. None if there are none."""
    part = predictions.roles().get(IN_DOMAIN)
    if part is None:
        return None
    return fit(part.student, part.label, part.domain, styled_temperature=part.styled_temperature)


def calibrations(predictions: Predictions, trust: Trust) -> tuple[Calibration, ...]:
    """Return the calibration for each role."""
    return tuple(
        Calibration(role, *(reliability(probabilities(p.student, t), p.label) for t in (1.0, trust.temperature)))
        for role, p in predictions.roles().items()
    )


def rejections(predictions: Predictions, trust: Trust) -> tuple[Rejection, ...]:
    """Return the effect of rejection by confidence for each role."""
    results = []
    for role, part in predictions.roles().items():
        right = part.answers == part.label
        curve = risk_coverage(trust.scores(part.student), right)
        results.append(Rejection(role, curve, apply_thresholds(trust, part.student, right)))
    return tuple(results)


def filled_bins(r: Reliability) -> list[tuple[float | int, ...]]:
    """Return (lower edge, upper edge, images, mean confidence, accuracy) of every bin that is not empty."""
    return [
        (*r.edges[i : i + 2].tolist(), int(r.count[i]), float(r.confidence[i]), float(r.accuracy[i]))
        for i in np.flatnonzero(r.count)
    ]


def reliability_sheet(results: Sequence[Calibration], temperature: float, reference: Reference = LABELS) -> Sheet:
    """Return one row per role, temperature and non-empty bin."""
    rows = [
        (c.role, t, *values)
        for c in results
        for t, r in ((1.0, c.before), (temperature, c.after))
        for values in filled_bins(r)
    ]
    columns = ("role", "temperature", "from", "to", "images", "mean_confidence", reference.key)
    return Sheet("reliability", columns, rows)


def risk_sheet(results: Sequence[Rejection]) -> Sheet:
    """Return one row per point of the risk-coverage curves."""
    rows = [
        (f.role, float(coverage), float(risk), float(least))
        for f in results
        for coverage, risk, least in zip(f.curve.coverage, f.curve.risk, f.curve.threshold, strict=True)
    ]
    return Sheet("risk_coverage", ("role", "coverage", "risk", "least_confidence"), rows)


def threshold_sheet(results: Sequence[Rejection]) -> Sheet:
    """Return the effect of each threshold of the student."""
    rows = [(f.role, t.target, t.threshold, t.coverage, t.risk) for f in results for t in f.thresholds]
    return Sheet("thresholds", ("role", "aimed_coverage", "least_confidence", "coverage", "risk"), rows)
