"""Confusion matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet

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
