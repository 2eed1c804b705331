"""How far a student's confidence can be believed, and what refusing the least confident answers brings."""

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
    """One role's, before and after the temperature.

    Attributes:
        role: ``in-domain`` or ``out-of-domain``.
        before: of the logits as they are.
        after: of the logits divided by the temperature.
    """

    role: str
    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class Refusal:
    """What refusing unsure answers does on one role's images."""

    role: str
    curve: RiskCoverage
    thresholds: tuple[Threshold, ...]


def fitted(predictions: Predictions) -> Trust | None:
    """Trust as a new run would keep it, from the sources' validation images alone; None without one."""
    part = predictions.roles().get(IN_DOMAIN)
    return None if part is None else fit(part.student, part.label, part.domain)


def calibrations(predictions: Predictions, trust: Trust) -> tuple[Calibration, ...]:
    """By role."""
    return tuple(
        Calibration(role, *(reliability(probabilities(p.student, t), p.label) for t in (1.0, trust.temperature)))
        for role, p in predictions.roles().items()
    )


def refusals(predictions: Predictions, trust: Trust) -> tuple[Refusal, ...]:
    """By role, by confidence."""
    found = []
    for role, part in predictions.roles().items():
        right = part.answers == part.label
        curve = risk_coverage(trust.scores(part.student), right)
        found.append(Refusal(role, curve, apply_thresholds(trust, part.student, right)))
    return tuple(found)


def reliability_sheet(found: Sequence[Calibration], temperature: float, reference: Reference = LABELS) -> Sheet:
    """A line for every role, temperature and bin that is not empty."""
    rows: list[tuple[str | int | float, ...]] = [
        (c.role, t, *r.edges[i : i + 2].tolist(), int(r.count[i]), float(r.confidence[i]), float(r.accuracy[i]))
        for c in found
        for t, r in ((1.0, c.before), (temperature, c.after))
        for i in np.flatnonzero(r.count)
    ]
    columns = ("role", "temperature", "from", "to", "images", "mean_confidence", reference.key)
    return Sheet.of("reliability", columns, rows)


def risk_sheet(found: Sequence[Refusal]) -> Sheet:
    """A line for every share that can be answered."""
    rows = [
        (f.role, float(coverage), float(risk), float(least))
        for f in found
        for coverage, risk, least in zip(f.curve.coverage, f.curve.risk, f.curve.threshold, strict=True)
    ]
    return Sheet.of("risk_coverage", ("role", "coverage", "risk", "least_confidence"), rows)


def threshold_sheet(found: Sequence[Refusal]) -> Sheet:
    """What each threshold that the student keeps does."""
    rows = [(f.role, t.target, t.threshold, t.coverage, t.risk) for f in found for t in f.thresholds]
    return Sheet.of("thresholds", ("role", "aimed_coverage", "least_confidence", "coverage", "risk"), rows)
