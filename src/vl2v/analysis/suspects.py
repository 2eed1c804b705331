"""Labels that both the teacher and a cross-validated probe reject, and images unlike any class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v.analysis.probe import Floats, Labels, cross_validated, probabilities, stratified_folds
from vl2v.method.ridge import unit_rows

UNLIKE = 0.01  # share of the images that are shown as unlike any class


@dataclass(frozen=True)
class LabelCheck:
    """Results of teacher and probe for N labelled images.

    Attributes:
        rejected: [N] bool, whether both reject the label.
        suggested: [N] int64, the most probable class according to both together.
        teacher: [N] float64, the teacher's probability of the label.
        probe: [N] float64, the cross-validated probe's probability of the label.
        similarity: [N] float64, the largest cosine of the teacher's embedding with the mean embedding of a class.
        unlike: [N] bool, whether the similarity is among the lowest `UNLIKE` of all images, and the label not rejected.
    """

    rejected: NDArray[np.bool_]
    suggested: Labels
    teacher: Floats
    probe: Floats
    similarity: Floats
    unlike: NDArray[np.bool_]

    @property
    def doubt(self) -> Floats:
        """[N] in [0, 1], how improbable the label is according to both; labels are reviewed in this order."""
        return 1 - np.sqrt(self.teacher * self.probe)


def check_labels(teacher: Floats, embeddings: NDArray[np.floating], features: NDArray[np.floating], labels: Labels,
          units: Labels | None = None) -> LabelCheck:  # fmt: skip
    """Check labels with the teacher and with a probe that was not fitted on the image.

    Args:
        teacher: [N, K] zero-shot probabilities.
        embeddings: [N, D] embeddings of the teacher.
        features: [N, F] features of the frozen student.
        labels: [N] in [0, K).
        units: [N]; images of one unit are in one fold, see `vl2v.analysis.probe.stratified_folds`.
    """
    folds = stratified_folds(labels, units)
    probe = probabilities(cross_validated(features, labels, folds, teacher.shape[1]), labels)
    rows = np.arange(len(labels))
    rejected = rejects(teacher, labels) & rejects(probe, labels)
    similarity = class_similarity(embeddings, labels)
    count = int(UNLIKE * len(labels))
    unlike = np.zeros(len(labels), bool)
    unlike[np.argsort(similarity, kind="stable")[:count]] = True
    suggested = (teacher * probe).argmax(axis=1).astype(np.int64)
    return LabelCheck(rejected, suggested, teacher[rows, labels], probe[rows, labels], similarity, unlike & ~rejected)


def rejects(probability: Floats, labels: Labels) -> NDArray[np.bool_]:
    """Return whether a classifier rejects each label, by confident learning (Northcutt et al., JAIR 2021).

    The threshold of a class is the mean probability of the class over the images with its label. An image is assigned
    to the most probable class among those whose threshold it reaches; in case of a tie, to its label. If the class
    differs from the label, the label is rejected. Over- or underconfidence for a whole class does not change the
    result.

    Args:
        probability: [N, K] of images that the classifier was not fitted on.
        labels: [N] in [0, K).
    """
    classes = probability.shape[1]
    label_probability = probability[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=label_probability, minlength=classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)  # inf for a class without labels
    reached = np.where(probability >= thresholds, probability, -1.0)
    rejected: NDArray[np.bool_] = reached.max(axis=1) > np.maximum(reached[np.arange(len(labels)), labels], 0)
    return rejected


def class_similarity(embeddings: NDArray[np.floating], labels: Labels) -> Floats:
    """Return the largest cosine of each of N embeddings [N, D] with the mean embedding of a class, float64."""
    rows = unit_rows(embeddings)
    means = unit_rows(np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)]))
    similarity: Floats = (rows @ means.T).max(axis=1)
    return similarity
