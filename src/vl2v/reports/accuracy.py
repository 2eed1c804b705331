"""Accuracy per domain, with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vl2v.evaluation.evaluation import ROLES, Evaluation
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet

Z95 = 1.959963984540054  # two-sided 95% of the normal distribution


@dataclass(frozen=True)
class Share:
    """An accuracy in [0, 1] and the bounds of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DomainAccuracy:
    """One domain's.

    Attributes:
        domain: its name.
        role: ``in-domain`` or ``out-of-domain``.
        images: how many.
        student: top-1.
        teacher: zero-shot; None where it was not asked.
    """

    domain: str
    role: str
    images: int
    student: Share
    teacher: Share | None


def wilson(right: float, images: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson, JASA 1927): never outside [0, 1], sound for few images.

    Args:
        right: how many of `images` are right.
        images: at least 1.
        z: quantile of the normal distribution.

    Returns:
        (low, high).
    """
    share, more = right / images, z * z / images
    centre, half = share + more / 2, z * math.sqrt(share * (1 - share) / images + more / (4 * images))
    return max(0.0, (centre - half) / (1 + more)), min(1.0, (centre + half) / (1 + more))


def share_of(accuracy: float, images: int) -> Share:
    """An accuracy over so many images, with its Wilson interval."""
    return Share(accuracy, *wilson(accuracy * images, images))


def accuracies(evaluation: Evaluation) -> tuple[DomainAccuracy, ...]:
    """In-domain first, then the held-out domains."""
    return tuple(
        DomainAccuracy(
            row.domain,
            row.role,
            row.images,
            share_of(row.student, row.images),
            None if row.zero_shot is None else share_of(row.zero_shot, row.images),
        )
        for role in ROLES
        for row in evaluation.rows
        if row.role == role
    )


def accuracy_sheet(found: Sequence[DomainAccuracy], reference: Reference = LABELS) -> Sheet:
    """A line per domain; bounds are of Wilson's 95% interval."""
    names = ("student", "student_low", "student_high", "teacher", "teacher_low", "teacher_high")
    rows = []
    for f in found:
        teacher = (f.teacher.value, f.teacher.low, f.teacher.high) if f.teacher else (None, None, None)
        rows.append((f.domain, f.role, f.images, f.student.value, f.student.low, f.student.high, *teacher))
    return Sheet.of(reference.key, ("domain", "role", "images", *names), rows)
