"""Accuracy per domain with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

from vl2v.analysis.intervals import share_of
from vl2v.evaluation.evaluation import ROLES, DomainScore, Evaluation
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet
from vl2v.words import NONE, percent


def accuracies(evaluation: Evaluation) -> list[DomainScore]:
    """Return the results of every domain, in-domain first, then the held-out domains."""
    return [row for role in ROLES for row in evaluation.rows if row.role == role]


def interval(accuracy: float | None, images: int) -> tuple[float | None, float | None, float | None]:
    """Return an accuracy over a number of images and the bounds of its 95% Wilson interval; None if it is unknown."""
    if accuracy is None:
        return None, None, None
    share = share_of(accuracy, images)
    return share.value, share.low, share.high


def with_interval(accuracy: float | None, images: int) -> str:
    """Format an accuracy with its interval, in percent; a dash for None."""
    if accuracy is None:
        return NONE
    share = share_of(accuracy, images)
    return f"{percent(share.value)}  ({100 * share.low:.1f} to {100 * share.high:.1f})"


def accuracy_sheet(domains: Sequence[DomainScore], reference: Reference = LABELS) -> Sheet:
    """Return one row per domain, with the bounds of the 95% Wilson interval."""
    names = ("student", "student_low", "student_high", "teacher", "teacher_low", "teacher_high")
    macros = ("student_macro", "teacher_macro")
    rows = [
        (r.domain, r.role, r.images, *interval(r.student, r.images), *interval(r.zero_shot, r.images), *macro)
        for r in domains
        for macro in ((r.student_macro, r.zero_shot_macro),)
    ]
    return Sheet(reference.key, ("domain", "role", "images", *names, *macros), rows)
