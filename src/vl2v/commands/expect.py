"""Estimate the accuracy of a finished run's student on unlabelled images of a new site. Nothing is queried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v.analysis.changed import VIEWS, Outputs, changed, joined, outputs
from vl2v.analysis.expected import (
    CLEAN,
    FEWEST_PER_GROUP,
    Calibration,
    Distances,
    Images,
    Known,
    Probe,
    Signals,
    calibrate,
    inverse_logit,
    large_groups,
)
from vl2v.analysis.intervals import Share, share_of, wilson
from vl2v.analysis.probe import stratified_folds
from vl2v.commands.evaluate import find_images
from vl2v.commands.trust import read_answers
from vl2v.config import RunConfig
from vl2v.errors import DataError, RunError, Vl2vError
from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.faults import explaining
from vl2v.planning.models import open_student
from vl2v.progress import Progress, Silent, warn
from vl2v.runs.folder import RunFolder
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.threads import computing
from vl2v.training.pace import student_threads
from vl2v.trust.calibration import fit_temperature
from vl2v_runtime.drift import Drift
from vl2v_runtime.imaging import UnreadableImageError
from vl2v_runtime.names import shown

MOST_KNOWN = 250  # validation images of a domain; more take time and change little
MOST_CHANGED = 40  # of these, how many are changed in each way
MOST_NEW = 1000  # images of the new site that are looked at; more would hardly narrow the interval
FEW = 30  # images of the new site, below which the answer is mostly chance
LABELLED = 100  # images that the advice suggests to label
WORSE = 0.05  # below the accuracy on validation images, from which on something should be done


@dataclass(frozen=True)
class Expected:
    """The accuracy to expect of a student on images without labels.

    Attributes:
        accuracy: estimate with a 95% interval, in [0, 1].
        validation: accuracy on the validation images of the source domains, with Wilson's interval.
        images: number of images that the estimate is based on.
        found: number of images of the site.
        unreadable: number of images that could not be read.
        confidence: mean calibrated confidence of the student on the new images, in [0, 1].
        agreement: share of images on which a linear probe gives the same answer, in [0, 1].
        calibration: error of the estimate on source domains that were left out, in log odds.
        distance: 0 if the images are like those of the training domains, 1 if they are as far from them as a training
            domain from the others; None with one source domain.
        drift: comparison with the training domains as `vl2v predict` makes it; None for a student without it.
        warnings: reasons to doubt the estimate.
        next_step: what to do.
        reference: what the accuracy compares the answers with.
    """

    accuracy: Share
    validation: Share
    images: int
    found: int
    unreadable: int
    confidence: float
    agreement: float
    calibration: Calibration
    distance: float | None
    drift: Drift | None
    warnings: tuple[str, ...]
    next_step: str
    reference: Reference = LABELS

    @property
    def line(self) -> str:
        """One line for people."""
        words = "accuracy" if self.reference is LABELS else self.reference.measure
        return (
            f"expected {words}: {self.accuracy.value:.0%} ({self.accuracy.low:.0%} to {self.accuracy.high:.0%}), "
            f"on validation images {self.validation.value:.0%}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, shares in [0, 1]."""
        return asdict(self) | {"reference": self.reference.name, "measure": self.reference.measure, "line": self.line}


@dataclass(frozen=True)
class Basis:
    """What is known of a student before new images are seen."""

    student: Student
    frozen: nn.Module | None
    temperature: float
    probe: Probe
    known: Known
    validation: Share
    calibration: Calibration
    distances: Distances | None
    reference: Reference
    warnings: tuple[str, ...]

    def expect(self, new: Outputs, found: int, unreadable: int) -> Expected:
        """The estimate for the outputs on one image or more."""
        images = len(new.logits)
        signals = Signals.of(new.logits.astype(np.float64), self.temperature, self.probe(new.frozen))
        distance, beyond = (1.0, False) if self.distances is None else self.distances.relative(new.frozen)
        estimate = self.known.estimates(signals)[self.calibration.estimator]
        share = self.calibration.share(estimate, images, distance)
        drift = self.student.trust.drift(new.embeddings) if self.student.trust and new.embeddings.size else None
        warnings = list(self.warnings)
        if images < FEW:
            warnings.append(f"{images} images are too few for a good estimate; pass {FEW} or more, e.g. of a whole day")
        if beyond:
            warnings.append(
                "the images look like none of the training domains: they lie farther from them than any training "
                "domain from the others, so the error may be larger than the interval says"
            )
        return Expected(
            share, self.validation, images, found, unreadable, inverse_logit(signals.confidence),
            inverse_logit(signals.agreement), self.calibration, None if self.distances is None else distance, drift,
            tuple(warnings), next_step(share, self.validation, images), self.reference,
        )  # fmt: skip


def next_step(expected: Share, validation: Share, images: int) -> str:
    """What to do about an estimate."""
    low, high = wilson(expected.value * LABELLED, LABELLED)
    check = (
        f"label {LABELLED} of the images and run vl2v evaluate, which narrows the interval to about "
        f"{100 * (high - low) / 2:.0f} points on each side"
    )
    if images < FEW:
        return f"collect more images of the site, or {check}"
    if expected.high < validation.value - WORSE:
        return (
            f"less accurate than on the training domains: {check}; then distil again with the new site as a further "
            "domain"
        )
    if expected.value < validation.value - WORSE:
        return f"probably less accurate than on the training domains: {check}"
    return f"no sign of a loss; to be certain, {check}"


@explaining
def expect(run: str | Path, images: str | Path | Sequence[str | Path], *, progress: Progress | None = None) -> Expected:
    """Estimate the accuracy of a student on images without labels, with a 95% interval. No teacher is queried.

    The estimate starts from the student's calibrated confidence on the images and from its agreement with a linear
    probe on the pretrained backbone. Its error is measured with probes that leave each source domain out in turn, on
    the run's validation images and on changed copies of them. Labels of the new site and of held-out domains are not
    used.
    At most 1,000 images, drawn at random, are looked at.

    Args:
        run: folder of a finished run, with its images where they were.
        images: an image or a folder of images at any depth, or several of them.
        progress: receives the progress.

    Raises:
        RunError: if the run is not finished, has too few validation images, or its classes were changed.
        DataError: if there is no readable image, or the images of the run have moved.
    """
    progress = progress or Silent()
    given = [images] if isinstance(images, str | Path) else images
    paths, left_out = find_images([Path(path) for path in given])
    for text in left_out:
        warn(progress, text)
    basis = basis_of(Path(run), progress)
    chosen = [paths[i] for i in np.sort(np.random.default_rng(0).permutation(len(paths))[:MOST_NEW])]
    pixels, faults = _readable(basis.student, chosen, progress)
    if faults:
        warn(progress, f"{len(faults)} images cannot be read and are left out: {'; '.join(faults[:3])}")
    with computing(student_threads(basis.student, len(pixels))):
        parts: list[tuple[Tensor, ...]] = []
        with progress.stage("new images", len(pixels)) as advance:
            for part in outputs(basis.student, basis.frozen, pixels):
                parts.append(part)
                advance(len(part[0]))
    expected = basis.expect(joined(parts, basis.frozen is None), len(paths), len(faults))
    for text in expected.warnings:
        warn(progress, text)
    return expected


def basis_of(path: Path, progress: Progress) -> Basis:
    """Measure a finished run's student on its validation images, and calibrate the estimate.

    Raises:
        RunError, DataError: see `expect`.
    """
    folder = RunFolder(path)
    config = folder.config()
    kept = read_answers(folder)
    kept = kept.of(kept.role == IN_DOMAIN)
    names = kept.domains
    domain = np.array([names.index(name) for name in kept.domain.tolist()], np.int64)
    _ensure_enough(path, kept, domain)
    student = Student.load(folder.student)
    if student.provenance.get(CHANGES) or len(student.classes) != kept.student.shape[1]:
        raise RunError(
            "The classes of this student were changed after training.",
            expected="the classes that the validation images were predicted with",
            found=f"{', '.join(map(shown, student.classes[:8]))}{', ...' * (len(student.classes) > 8)}",
            next_step="label some images of the site and run vl2v evaluate",
        )
    warnings = []
    frozen = _frozen(config, student)
    if frozen is None:
        warnings.append(
            "the pretrained weights of the student cannot be loaded, so its own features serve instead; they have seen "
            "every source domain, and the interval may be too narrow"
        )
    rows = _sample(domain)
    known, clean = _measure(student, frozen, config.data.folder, kept.of(rows), domain[rows], progress)
    labels, classes = known.labels[known.view == CLEAN], len(student.classes)
    of_clean = known.domain[known.view == CLEAN]
    groups, distances = known.domain, None
    if len(large_groups(of_clean)) > 1:
        distances = Distances.of(known.of(known.view == CLEAN), of_clean)
    else:
        warnings.append("there is one source domain only, so the interval does not cover a change of domain")
        groups = _halves(known)
    temperature, probe = fit_temperature(clean.logits, labels), Probe(clean.frozen, labels, classes)
    right, scores = clean.logits.argmax(axis=1) == labels, clean.logits.astype(np.float64)
    return Basis(
        student, frozen, temperature, probe, Known.of(scores, temperature, probe.scores, labels),
        share_of(float(right.mean()), len(right)), calibrate(known, classes, groups), distances,
        TEACHER if config.data.classes else LABELS, tuple(warnings),
    )  # fmt: skip


def _ensure_enough(path: Path, kept: Predictions, domain: NDArray[np.int64]) -> None:
    if len(domain) < 2 * FEWEST_PER_GROUP:
        raise RunError(
            f"{path} has too few validation images.",
            expected=f"{2 * FEWEST_PER_GROUP} validation images of the source domains",
            found=str(len(kept.label)) if len(kept.label) else "none",
            next_step="train with more of them (data.holdout_fraction), or label some images and run vl2v evaluate",
        )


def _sample(domain: NDArray[np.int64]) -> NDArray[np.bool_]:
    """At most `MOST_KNOWN` images of every domain."""
    rng, chosen = np.random.default_rng(0), np.zeros(len(domain), bool)
    for value in np.unique(domain):
        chosen[rng.permutation(np.flatnonzero(domain == value))[:MOST_KNOWN]] = True
    return chosen


def _halves(known: Images) -> NDArray[np.int64]:
    """Two halves of the images, [N], the changed copies of an image in its half."""
    clean = known.view == CLEAN
    half = stratified_folds(known.labels[clean], count=2)
    return np.concatenate([half, np.tile(half[_changed(known.domain[clean])], len(VIEWS))])


def _changed(domain: NDArray[np.int64]) -> NDArray[np.int64]:
    """The images that are changed: the first `MOST_CHANGED` of each domain in the sample's random order."""
    rng = np.random.default_rng(1)
    parts = [rng.permutation(np.flatnonzero(domain == value))[:MOST_CHANGED] for value in np.unique(domain)]
    return np.sort(np.concatenate(parts))


def _frozen(config: RunConfig, student: Student) -> nn.Module | None:
    """The student's backbone with its pretrained weights; None if they are not available here."""
    try:
        return open_student(config).module.eval().to(student.device)
    except (Vl2vError, OSError, RuntimeError, ValueError):
        return None


def _measure(
    student: Student, frozen: nn.Module | None, root: Path, kept: Predictions, domain: NDArray[np.int64],
    progress: Progress,
) -> tuple[Images, Outputs]:  # fmt: skip
    """The features of validation images and of changed copies, and all outputs of the former."""
    try:
        pixels = torch.stack([student.preprocess.pixels(root / path) for path in kept.path.tolist()])
    except (OSError, UnreadableImageError) as error:
        raise DataError(
            "The validation images of the run cannot be read.",
            expected=f"the images that it was trained on, in {shown(root)}",
            found=str(error),
            next_step="put them back; vl2v expect compares the new images with them",
        ) from error
    copies, rng = _changed(domain), np.random.default_rng(0)
    every: list[Outputs] = []
    with (
        computing(student_threads(student, len(pixels) + len(copies) * len(VIEWS))),
        progress.stage("validation images and changed copies", len(pixels) + len(copies) * len(VIEWS)) as advance,
    ):
        for view in range(len(VIEWS) + 1):
            batch = pixels if view == CLEAN else changed(pixels[copies], view, rng)
            parts = []
            for part in outputs(student, frozen, batch):
                parts.append(part)
                advance(len(part[0]))
            every.append(joined(parts, frozen is None))
    rows = np.concatenate([np.arange(len(pixels)), np.tile(copies, len(VIEWS))])
    view_of = np.repeat(np.arange(len(VIEWS) + 1), [len(pixels), *[len(copies)] * len(VIEWS)])
    features = np.concatenate([one.features for one in every])
    before = features if frozen is None else np.concatenate([one.frozen for one in every])
    return Images(features, before, kept.label[rows], domain[rows], view_of), every[CLEAN]


def _readable(student: Student, paths: Sequence[Path], progress: Progress) -> tuple[Tensor, list[str]]:
    """The pixels of the images that can be read, [N, 3, S, S] uint8, and the faults of the others.

    Raises:
        DataError: if none can be read.
    """
    rows: list[Tensor] = []
    faults: list[str] = []
    with progress.stage("reading new images", len(paths)) as advance:
        for path in paths:
            try:
                rows.append(student.preprocess.pixels(path))
            except UnreadableImageError as error:
                faults.append(f"{shown(path)}: {error}")
            except OSError as error:
                faults.append(f"{shown(path)}: {error.strerror or error}")
            advance(1)
    if not rows:
        step = "pass other images"
        raise DataError(
            "No image can be read.", expected="at least one readable image", found="; ".join(faults[:3]), next_step=step
        )
    return torch.stack(rows), faults
