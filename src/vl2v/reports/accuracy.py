"""Accuracy per domain and recall per class, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vl2v.analysis.intervals import share_of
from vl2v.evaluation.evaluation import ROLES, DomainScore, Evaluation, recalls
from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.formatting import NONE, count, percent
from vl2v.reports.page import Section, TableBlock
from vl2v.reports.sheet import Sheet
from vl2v.reports.source import ROLE_NAMES, Source


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


MOST = 30  # classes in a table of the page; the CSV file has all


@dataclass(frozen=True)
class Recall:
    """Recall of one class on all images of a role.

    Attributes:
        role: ``in-domain``, ``test`` or ``out-of-domain``.
        images: number of its images, at least 1.
        student: share in [0, 1] of them for which the student predicts the class.
        teacher: share in [0, 1] for which the zero-shot teacher does; None if it was not queried.
    """

    role: str
    name: str
    images: int
    student: float
    teacher: float | None


def recall_section(source: Source) -> Section:
    """Return the recall of each class by role, with the number of images and an interval, the lowest recall first."""
    name, title, labels = "recall", "Recall by class", source.reference is LABELS
    if source.predictions is None:
        return Section(name, title, missing=[source.missing["predictions"]])
    recalls = class_recalls(source.predictions, source.classes, source.reference)
    text = (
        "The recall of a class is the share of its images that the student assigns to it. "
        f"Macro {source.reference.key} is the mean recall of all classes, so rare and frequent classes have the same "
        "weight. Brackets: 95% Wilson interval, which is wide for classes with few images."
    )
    if not labels:
        text += " Here, the class of an image is the prediction of the teacher."
    sheet = recall_sheet(recalls, source.reference)
    blocks: list[TableBlock] = []
    for role in dict.fromkeys(one.role for one in recalls):
        entries = sorted((one for one in recalls if one.role == role), key=lambda one: one.student)
        limit_note = "" if len(entries) <= MOST else f", the lowest {MOST} of {count(len(entries))}"
        heads = ("class", "images", "student (95%)", *(("teacher",) if labels else ()))
        rows = [
            (
                one.name,
                count(one.images),
                with_interval(one.student, one.images),
                *((percent(one.teacher),) if labels else ()),
            )
            for one in entries[:MOST]
        ]
        macro = percent(float(np.mean([one.student for one in entries])))
        where = f"{ROLE_NAMES[role].capitalize()} images"
        caption = f"{where}: macro {source.reference.key} {macro}{limit_note}"
        blocks.append(TableBlock(caption, heads, rows, [] if blocks else [sheet]))
    return Section(name, title, [text], blocks)


def class_recalls(predictions: Predictions, classes: list[str], reference: Reference = LABELS) -> tuple[Recall, ...]:
    """Return the recall of every class that has images, by role and in the order of the classes."""
    entries = []
    for role, part in predictions.roles().items():
        images = np.bincount(part.label, minlength=len(classes))
        student, teacher = recalls(part.student, part.label), None
        if part.teacher is not None and reference is LABELS:
            teacher = recalls(part.teacher, part.label)
        for k in np.flatnonzero(images).tolist():
            teacher_recall = None if teacher is None else float(teacher[k])
            entries.append(Recall(role, classes[k], int(images[k]), float(student[k]), teacher_recall))
    return tuple(entries)


def recall_sheet(entries: tuple[Recall, ...], reference: Reference = LABELS) -> Sheet:
    """Return one row per role and class, with the bounds of the 95% Wilson interval."""
    columns = ("role", reference.true, "images", "student", "student_low", "student_high", "teacher")
    rows = [(r.role, r.name, r.images, *interval(r.student, r.images), r.teacher) for r in entries]
    return Sheet("recall", columns, rows)
