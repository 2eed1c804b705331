"""Mistakes: confusion matrices, and the most confident wrong predictions with their images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet
from vl2v_runtime.imaging import UnreadableImageError, decode, small_jpeg
from vl2v_runtime.trust import probabilities

MANY = 30  # with more classes, the names in a matrix are not readable


@dataclass(frozen=True)
class Pair:
    """A true class, a predicted class, how often they were confused, and the number of images of the true class."""

    true: str
    taken_for: str
    count: int
    images: int


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix of one role.

    Attributes:
        role: ``in-domain``, ``test`` or ``out-of-domain``.
        classes: K class names.
        counts: [K, K] int64, number of images by true class and predicted class.
    """

    role: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Normalised matrix [K, K]: rows of classes with images sum to 1, the others are 0."""
        sums = self.counts.sum(axis=1, keepdims=True)
        shares: NDArray[np.float64] = self.counts / np.maximum(sums, 1)
        return shares

    def pairs(self, most: int = 12) -> tuple[Pair, ...]:
        """Return the most frequent mistakes, at most `most`."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        sums = self.counts.sum(axis=1)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        cells = [np.unravel_index(index, wrong.shape) for index in order]
        names = self.classes
        return tuple(Pair(names[t], names[a], int(wrong[t, a]), int(sums[t])) for t, a in cells if wrong[t, a])


def confusions(predictions: Predictions, classes: list[str]) -> tuple[Confusion, ...]:
    """Return the confusion matrix of the student for each role."""
    matrices = []
    for role, part in predictions.roles().items():
        counts = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts, (part.label, part.answers), 1)
        matrices.append(Confusion(role, tuple(classes), counts))
    return tuple(matrices)


def confusion_sheet(matrices: tuple[Confusion, ...], reference: Reference = LABELS) -> Sheet:
    """Return one row per role, true class and predicted class that occur together."""
    rows = []
    for c in matrices:
        for t, a in np.argwhere(c.counts):
            rows.append((c.role, c.classes[t], c.classes[a], int(c.counts[t, a]), float(c.shares[t, a])))
    return Sheet("confusion", ("role", reference.true, "predicted", "images", f"share_of_{reference.true}"), rows)


SIDE = 224  # pixels of the longer side; shown at about 140, so it is sharp on high-density screens
QUALITY = 72


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        role: ``in-domain``, ``test`` or ``out-of-domain``.
        path: path below the root of the data.
        confidence: confidence of the prediction in [0, 1], with temperature scaling.
        teacher: zero-shot prediction of the teacher. None if it was not queried.
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
    """Return at most `most` wrong predictions of each role, the most confident first."""
    wrong_predictions = []
    for role, part in predictions.roles().items():
        rows = probabilities(part.student, temperature)
        answers, confidence = part.answers, rows.max(axis=1)
        wrong = np.flatnonzero(answers != part.label)
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:most]:
            teacher = None if part.teacher is None else classes[int(part.teacher[i].argmax())]
            names = classes[int(part.label[i])], classes[int(answers[i])]
            where = str(part.domain[i]), str(part.path[i])
            wrong_predictions.append(Mistake(role, *where, *names, float(confidence[i]), teacher))
    return tuple(wrong_predictions)


def picture(path: Path, side: int = SIDE) -> str | None:
    """Return a thumbnail as a JPEG ``data:`` URL, or None if the image is missing or cannot be read."""
    try:
        data = small_jpeg(decode(path), side, QUALITY)
    except (OSError, UnreadableImageError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def mistake_sheet(
    wrong_predictions: Sequence[Mistake], reference: Reference = LABELS, names: Mapping[str, str] | None = None
) -> Sheet:
    """Return one row per image. If the teacher is the reference, its prediction is not repeated.

    Args:
        names: names of images in an imported dataset by path, which replace the paths.
    """
    columns: tuple[str, ...] = ("role", "domain", "path", reference.true, "predicted", "confidence", "teacher")
    rows: list[tuple[str | float | None, ...]]
    rows = [
        (m.role, m.domain, (names or {}).get(m.path, m.path), m.true, m.predicted, m.confidence, m.teacher)
        for m in wrong_predictions
    ]
    if reference is not LABELS:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Sheet("mistakes", columns, rows)
