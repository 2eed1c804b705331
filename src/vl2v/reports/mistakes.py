"""The most confident wrong predictions, with their images."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet
from vl2v_runtime.imaging import UnreadableImageError, decode, small_jpeg
from vl2v_runtime.trust import probabilities

SIDE = 224  # pixels of a picture's longer side; shown at about 140, so sharp on dense screens too
QUALITY = 72


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Attributes:
        role: ``in-domain`` or ``out-of-domain``.
        domain: the image's.
        path: below the data's root.
        true: its class.
        predicted: the student's answer.
        confidence: of that answer, in [0, 1], after the temperature.
        teacher: the teacher's answer; None where it was not asked.
    """

    role: str
    domain: str
    path: str
    true: str
    predicted: str
    confidence: float
    teacher: str | None


def mistakes(
    predictions: Predictions, classes: Sequence[str], temperature: float = 1.0, most: int = 8
) -> tuple[Mistake, ...]:
    """At most so many of each role, the most confident first."""
    found = []
    for role, part in predictions.roles().items():
        rows = probabilities(part.student, temperature)
        answers, confidence = part.student.argmax(axis=1), rows.max(axis=1)
        wrong = np.flatnonzero(answers != part.label)
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:most]:
            teacher = None if part.teacher is None else classes[int(part.teacher[i].argmax())]
            names = classes[int(part.label[i])], classes[int(answers[i])]
            where = str(part.domain[i]), str(part.path[i])
            found.append(Mistake(role, *where, *names, float(confidence[i]), teacher))
    return tuple(found)


def picture(path: Path, side: int = SIDE) -> str | None:
    """An image made small, as the text of a JPEG's ``data:`` address; None if it is gone or cannot be read."""
    try:
        data = small_jpeg(decode(path), side, QUALITY)
    except (OSError, UnreadableImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def mistake_sheet(found: Sequence[Mistake], reference: Reference = LABELS) -> Sheet:
    """A line for every picture shown; the teacher's answer stands there once where it is the reference."""
    columns: tuple[str, ...] = ("role", "domain", "path", reference.true, "predicted", "confidence", "teacher")
    rows: list[tuple[str | float | None, ...]]
    rows = [(m.role, m.domain, m.path, m.true, m.predicted, m.confidence, m.teacher) for m in found]
    if reference is not LABELS:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Sheet.of("mistakes", columns, rows)
