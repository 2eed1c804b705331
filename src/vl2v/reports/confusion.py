"""Confusion matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet

MANY = 30  # above so many classes the names of a matrix can no longer be read


@dataclass(frozen=True)
class Pair:
    """A true class, what it was taken for, how often, and of how many images of the true class."""

    true: str
    taken_for: str
    count: int
    images: int


@dataclass(frozen=True)
class Confusion:
    """One role's.

    Attributes:
        role: ``in-domain`` or ``out-of-domain``.
        classes: K names.
        counts: [K, K] int64, images by true class and answer.
    """

    role: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """[K, K], each row of a class with images sums to 1, the others are 0."""
        sums = self.counts.sum(axis=1, keepdims=True)
        shares: NDArray[np.float64] = self.counts / np.maximum(sums, 1)
        return shares

    def pairs(self, most: int = 12) -> tuple[Pair, ...]:
        """The most frequent mistakes, at most so many."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        sums = self.counts.sum(axis=1)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        found = [np.unravel_index(place, wrong.shape) for place in order]
        names = self.classes
        return tuple(Pair(names[t], names[a], int(wrong[t, a]), int(sums[t])) for t, a in found if wrong[t, a])


def confusions(predictions: Predictions, classes: list[str]) -> tuple[Confusion, ...]:
    """By role, of the student's answers."""
    found = []
    for role, part in predictions.roles().items():
        counts = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts, (part.label, part.student.argmax(axis=1)), 1)
        found.append(Confusion(role, tuple(classes), counts))
    return tuple(found)


def confusion_sheet(found: tuple[Confusion, ...], reference: Reference = LABELS) -> Sheet:
    """A line for every role, true class and answer that occurs."""
    rows = []
    for c in found:
        for t, a in np.argwhere(c.counts):
            rows.append((c.role, c.classes[t], c.classes[a], int(c.counts[t, a]), float(c.shares[t, a])))
    return Sheet.of("confusion", ("role", reference.true, "predicted", "images", f"share_of_{reference.true}"), rows)
