"""Expected accuracy on unlabelled images of a new site, calibrated by leaving source domains out in turn.

The estimate starts from two signals without labels: the mean calibrated confidence of a classifier, and how often it
agrees with a second one. Both are compared with their values on validation images (difference of confidences, Guillory
et al., ICCV 2021; agreement, Baek et al., NeurIPS 2022). How wrong such an estimate is on an unseen domain is measured
with linear probes that leave a source domain out, on its images as they are and changed. All errors are in logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v.analysis.intervals import Z95, Share
from vl2v.analysis.probe import STRENGTHS, Floats, Labels, cross_validated, fit, stratified_folds
from vl2v.method.ridge import unit_rows
from vl2v.trust.calibration import fit_temperature
from vl2v_runtime.trust import softmax

FEWEST_PER_GROUP = 10  # minimum number of unchanged validation images of a domain that is left out
CLEAN = 0  # view number of unchanged images
CONFIDENCE, AGREEMENT, BOTH = "confidence", "agreement", "confidence and agreement"
LOWEST = -1.0  # score of a class that a fold lacks; the scores of one-hot targets are about 0 to 1


def log_odds(right: float, images: int) -> float:
    """Return the log odds of a share of images. Half an image is added to either side, so that they are finite."""
    share = (right + 0.5) / (images + 1)
    return math.log(share / (1 - share))


def inverse_logit(value: float) -> float:
    """Return the share in (0, 1) with given log odds."""
    return 1 / (1 + math.exp(-value))


class Probe:
    """A linear probe whose penalty and temperature are chosen by cross-validation.

    Args:
        features: [N, F].
        labels: [N] in [0, classes).
        classes: number of classes, K.

    Attributes:
        scores: [N, K], of each image by a probe that was not fitted on it.
        temperature: temperature fitted on `scores`.
    """

    def __init__(self, features: NDArray[np.floating], labels: Labels, classes: int) -> None:
        folds, most = stratified_folds(labels), -1.0
        for strength, (weight, intercept) in zip(STRENGTHS, fit(features, np.eye(classes)[labels]), strict=True):
            scores = np.maximum(cross_validated(features, labels, folds, classes, (strength,)), LOWEST)
            right = float((scores.argmax(axis=1) == labels).mean())
            if right > most:
                most, self.scores, self._weight, self._intercept = right, scores, weight, intercept
        self.temperature = fit_temperature(self.scores, labels)

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Return the scores [M, K] of other images with features [M, F]."""
        logits: Floats = np.asarray(features, np.float64) @ self._weight + self._intercept
        return logits


@dataclass(frozen=True)
class Signals:
    """Measurements on two classifiers without labels, as log odds.

    Attributes:
        confidence: mean calibrated confidence of the first classifier.
        agreement: share of images on which both make the same prediction.
    """

    confidence: float
    agreement: float

    @classmethod
    def of(cls, first: Floats, temperature: float, second: Floats) -> Signals:
        """Compute them from the scores [N, K] of both, N at least 1, and the temperature of the first one."""
        sure = softmax(np.asarray(first, np.float64) / temperature).max(axis=1)
        same = first.argmax(axis=1) == second.argmax(axis=1)
        return cls(log_odds(float(sure.sum()), len(sure)), log_odds(int(same.sum()), len(same)))


@dataclass(frozen=True)
class LabelledSignals:
    """Signals and accuracy (log odds) on labelled images, with which new images are compared."""

    signals: Signals
    accuracy: float

    @classmethod
    def of(cls, first: Floats, temperature: float, second: Floats, labels: Labels) -> LabelledSignals:
        """Compute them; see `Signals.of`. The labels are [N]."""
        right = int((first.argmax(axis=1) == labels).sum())
        return cls(Signals.of(first, temperature, second), log_odds(right, len(labels)))

    def estimates(self, new: Signals) -> dict[str, float]:
        """Return the log odds of the accuracy on new images, by estimator."""
        sure = self.accuracy + new.confidence - self.signals.confidence
        same = self.accuracy + new.agreement - self.signals.agreement
        return {CONFIDENCE: sure, AGREEMENT: same, BOTH: (sure + same) / 2}


@dataclass(frozen=True)
class Images:
    """Features of validation images of the source domains, unchanged and changed.

    Attributes:
        features: [N, F] features of the student's backbone.
        frozen: [N, G] features of the backbone before training; equal to `features` if it is not available.
        labels: [N] class indices.
        domain: [N] int64, index of the domain.
        view: [N] int64, `CLEAN` or the number of the change.
    """

    features: NDArray[np.float32]
    frozen: NDArray[np.float32]
    labels: Labels
    domain: NDArray[np.int64]
    view: NDArray[np.int64]

    def of(self, mask: NDArray[np.bool_]) -> Images:
        """Return some of the images."""
        parts = (self.features, self.frozen, self.labels, self.domain, self.view)
        return Images(*(part[mask] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Calibration:
    """Error of the estimates on domains that were left out: true minus estimated log odds.

    Attributes:
        estimator: estimator with the smallest root mean square error.
        shift: mean error; below 0 if estimates are too optimistic.
        between: variance of the mean error between domains.
        within: variance of the error within a domain, over changes of its images.
        sites: number of pairs of domain and change.
        groups: number of domains.
    """

    estimator: str
    shift: float
    between: float
    within: float
    sites: int
    groups: int

    @classmethod
    def of(cls, errors: Mapping[str, Mapping[int, list[float]]]) -> Calibration:
        """Compute it from the errors by estimator and domain, of at least two domains."""
        every = {name: np.concatenate([*map(np.array, groups.values())]) for name, groups in errors.items()}
        best = min(every, key=lambda name: float((every[name] ** 2).mean()))
        means = np.array([np.mean(values) for values in errors[best].values()])
        rests = np.concatenate([np.array(values) - np.mean(values) for values in errors[best].values()])
        return cls(
            best,
            float(means.mean()),
            float(means.var(ddof=1)),
            float((rests**2).sum() / max(len(rests) - len(means), 1)),
            len(rests),
            len(means),
        )

    def share(self, estimate: float, images: int, distance: float) -> Share:
        """Return the expected accuracy with a 95% interval.

        Args:
            estimate: log odds by `estimator`.
            images: number of new images.
            distance: distance of the new images, see `Distances.relative`. The closer they are to the training domains,
                the less of the error of unseen domains is added.
        """
        nearness = min(max(distance, 0.0), 1.0)
        centre = estimate + nearness * self.shift
        value = inverse_logit(centre)
        unseen = nearness**2 * self.between * (1 + 1 / self.groups)
        half = Z95 * math.sqrt(unseen + self.within + 1 / (images * value * (1 - value)))
        return Share(value, inverse_logit(centre - half), inverse_logit(centre + half))


def calibrate(images: Images, classes: int, groups: NDArray[np.int64]) -> Calibration:
    """Leave each group out in turn, and compare the estimates for it with its true accuracy.

    The first classifier is a probe on the frozen features, which were not trained on the group either. The second one
    is a probe on the student's features.

    Args:
        classes: number of classes, K.
        groups: [N] int64, usually the domain; at least two of them have `FEWEST_PER_GROUP` unchanged images.
    """
    errors: dict[str, dict[int, list[float]]] = {name: {} for name in (CONFIDENCE, AGREEMENT, BOTH)}
    clean = images.view == CLEAN
    for group in large_groups(groups[clean]):
        others = images.of(clean & (groups != group))
        first = Probe(others.frozen, others.labels, classes)
        second = Probe(others.features, others.labels, classes)
        baseline = LabelledSignals.of(first.scores, first.temperature, second.scores, others.labels)
        for view in np.unique(images.view[groups == group]):
            site = images.of((groups == group) & (images.view == view))
            scores = first(site.frozen)
            outputs = LabelledSignals.of(scores, first.temperature, second(site.features), site.labels)
            for name, value in baseline.estimates(outputs.signals).items():
                errors[name].setdefault(group, []).append(outputs.accuracy - value)
    if images.features is images.frozen:  # two equal probes always agree
        errors = {CONFIDENCE: errors[CONFIDENCE]}
    return Calibration.of(errors)


def large_groups(groups: NDArray[np.int64]) -> list[int]:
    """Return the groups of [N] unchanged images that can be left out: those with `FEWEST_PER_GROUP` images."""
    values, counts = np.unique(groups, return_counts=True)
    return [int(value) for value in values[counts >= FEWEST_PER_GROUP]]


@dataclass(frozen=True)
class Distances:
    """Distances between the training domains in the frozen features.

    Attributes:
        centres: [C, G], mean of each class in each domain, with rows of length one before averaging.
        inside: mean distance between two halves of a training domain.
        outside: mean distance of a training domain from the others.
        farthest: largest distance of a training domain from the others.
    """

    centres: Floats
    inside: float
    outside: float
    farthest: float

    @classmethod
    def of(cls, images: Images, groups: NDArray[np.int64]) -> Distances:
        """Compute them from unchanged images of at least two groups."""
        rows, keys = unit_rows(images.frozen), images.labels * (int(groups.max()) + 1) + groups
        half = stratified_folds(keys, count=2) == 0
        inside, outside = [], []
        for group in large_groups(groups):
            here = groups == group
            inside.append(_distance(rows[here & ~half], _centres(rows[half], keys[half])))
            outside.append(_distance(rows[here], _centres(rows[~here], keys[~here])))
        return cls(_centres(rows, keys), float(np.mean(inside)), float(np.mean(outside)), max(outside))

    def relative(self, frozen: NDArray[np.float32]) -> tuple[float, bool]:
        """Return the relative distance of new images, and whether it exceeds that of every training domain.

        It is 0 for images like those of the training domains, and 1 for images like those of a domain that was left
        out.
        """
        distance = _distance(unit_rows(frozen), self.centres)
        room = self.outside - self.inside
        return (max(0.0, (distance - self.inside) / room) if room > 0 else 1.0), distance > self.farthest


def _centres(rows: Floats, keys: NDArray[np.int64]) -> Floats:
    return np.stack([rows[keys == key].mean(axis=0) for key in np.unique(keys)])


def _distance(rows: Floats, centres: Floats) -> float:
    """Return the length of the mean difference of [N, D] rows from their nearest centres, corrected for chance."""
    nearest = (rows @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
    differences = rows - centres[nearest]
    mean = differences.mean(axis=0)
    chance = ((differences - mean) ** 2).sum() / max(len(rows) - 1, 1) / len(rows)
    return math.sqrt(max(0.0, float(mean @ mean) - float(chance)))
