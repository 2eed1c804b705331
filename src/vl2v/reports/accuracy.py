"""Accuracy per domain with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vl2v.analysis.intervals import Share, share_of
from vl2v.evaluation.evaluation import ROLES, Evaluation
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet


@dataclass(frozen=True)
class DomainAccuracy:
    """Accuracy on one domain.

    Attributes:
        role: ``in-domain``, ``test`` or ``out-of-domain``.
        teacher: zero-shot accuracy of the teacher. None if it was not queried.
        macro: mean of the recall of the classes, of the student. None in runs of earlier versions.
    """

    domain: str
    role: str
    images: int
    student: Share
    teacher: Share | None
    macro: float | None = None
    teacher_macro: float | None = None


def accuracies(evaluation: Evaluation) -> tuple[DomainAccuracy, ...]:
    """Return the accuracy of every domain, in-domain first, then the held-out domains."""
    return tuple(
        DomainAccuracy(
            row.domain,
            row.role,
            row.images,
            share_of(row.student, row.images),
            None if row.zero_shot is None else share_of(row.zero_shot, row.images),
            row.student_macro,
            row.zero_shot_macro,
        )
        for role in ROLES
        for row in evaluation.rows
        if row.role == role
    )


def accuracy_sheet(domains: Sequence[DomainAccuracy], reference: Reference = LABELS) -> Sheet:
    """Return one row per domain, with the bounds of the 95% Wilson interval."""
    names = ("student", "student_low", "student_high", "teacher", "teacher_low", "teacher_high")
    macros = ("student_macro", "teacher_macro")
    rows = []
    for f in domains:
        student = f.student.value, f.student.low, f.student.high
        teacher = (f.teacher.value, f.teacher.low, f.teacher.high) if f.teacher else (None, None, None)
        rows.append((f.domain, f.role, f.images, *student, *teacher, f.macro, f.teacher_macro))
    return Sheet.of(reference.key, ("domain", "role", "images", *names, *macros), rows)
