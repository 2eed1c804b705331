"""Measurements on a finished run from which `vl2v expect` estimates accuracy on new images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vl2v.analysis.changed_images import VIEWS, Outputs, apply_change, join_outputs, model_outputs
from vl2v.analysis.expected import (
    CLEAN,
    FEWEST_PER_GROUP,
    Calibration,
    Distances,
    Images,
    LabelledSignals,
    Probe,
    calibrate,
    large_groups,
)
from vl2v.analysis.intervals import Share, share_of
from vl2v.analysis.probe import stratified_folds
from vl2v.commands.moved import MOVED
from vl2v.commands.run_images import sample_rows
from vl2v.commands.trust import read_answers
from vl2v.config import RunConfig
from vl2v.errors import DataError, RunError, Vl2vError
from vl2v.evaluation.evaluation import IN_DOMAIN
from vl2v.evaluation.predictions import Predictions
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.planning.models import open_student
from vl2v.progress import Progress
from vl2v.runs.folder import RunFolder
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.threads import using_threads
from vl2v.training.thread_count import student_threads
from vl2v.trust.calibration import fit_temperature
from vl2v_runtime.imaging import UnreadableImageError
from vl2v_runtime.names import shown

MOST_KNOWN = 250  # maximum number of validation images per domain; more would change little
MOST_CHANGED = 40  # maximum number of them that are changed in each way


@dataclass(frozen=True)
class Basis:
    """Measurements on a finished run, before new images are seen.

    Attributes:
        frozen: its backbone with the pretrained weights; None if they are not available.
        temperature: temperature of the student, fitted on the validation images.
        probe: linear probe, fitted on the frozen features of the validation images.
        baseline: signals, and accuracy of student and probe, on the validation images.
        validation: accuracy of the student on the validation images.
        calibration: error of the estimate on source domains that were left out.
        distances: distances from the training domains; None with one source domain.
        reference: what the accuracy compares predictions with.
        warnings: reasons to doubt estimates.
    """

    student: Student
    frozen: nn.Module | None
    temperature: float
    probe: Probe
    baseline: LabelledSignals
    validation: Share
    calibration: Calibration
    distances: Distances | None
    reference: Reference
    warnings: tuple[str, ...]


def basis_of(path: Path, progress: Progress) -> Basis:
    """Evaluate the student of a finished run on its validation images, and calibrate the estimate.

    Raises:
        RunError, DataError: see `expect`.
    """
    folder = RunFolder(path)
    config = folder.config()
    predictions = read_answers(folder)
    predictions = predictions.of(predictions.role == IN_DOMAIN)
    names = predictions.domains
    domain = np.array([names.index(name) for name in predictions.domain.tolist()], np.int64)
    _ensure_enough(path, predictions, domain)
    student, warnings = _student_of(folder, predictions), []
    frozen = _frozen(config, student)
    if frozen is None:
        warnings.append(
            "the pretrained weights of the student cannot be loaded, so its own features serve instead; they have seen "
            "every source domain, and the interval may be too narrow"
        )
    rows = sample_rows(predictions, MOST_KNOWN)
    images, clean = _measure(student, frozen, config.data.folder, predictions.of(rows), domain[rows], progress)
    labels, classes = images.labels[images.view == CLEAN], len(student.classes)
    of_clean = images.domain[images.view == CLEAN]
    groups, distances = images.domain, None
    if len(large_groups(of_clean)) > 1:
        distances = Distances.of(images.of(images.view == CLEAN), of_clean)
    else:
        warnings.append("there is one source domain only, so the interval does not cover a change of domain")
        groups = _halves(images)
    temperature, probe = fit_temperature(clean.logits, labels), Probe(clean.frozen, labels, classes)
    right, scores = clean.logits.argmax(axis=1) == labels, clean.logits.astype(np.float64)
    return Basis(
        student, frozen, temperature, probe, LabelledSignals.of(scores, temperature, probe.scores, labels),
        share_of(float(right.mean()), len(right)), calibrate(images, classes, groups), distances,
        TEACHER if config.data.classes else LABELS, tuple(warnings),
    )  # fmt: skip


def _student_of(folder: RunFolder, predictions: Predictions) -> Student:
    student = Student.load(folder.student)
    if student.provenance.get(CHANGES) or len(student.classes) != predictions.student.shape[1]:
        raise RunError(
            "The classes of this student were changed after training.",
            expected="the classes that the validation images were predicted with",
            found=f"{', '.join(map(shown, student.classes[:8]))}{', ...' * (len(student.classes) > 8)}",
            next_step="label some images of the site and run vl2v evaluate",
        )
    return student


def _ensure_enough(path: Path, predictions: Predictions, domain: NDArray[np.int64]) -> None:
    if len(domain) < 2 * FEWEST_PER_GROUP:
        raise RunError(
            f"{path} has too few validation images.",
            expected=f"{2 * FEWEST_PER_GROUP} validation images of the source domains",
            found=str(len(predictions.label)) if len(predictions.label) else "none",
            next_step="train with more of them (data.holdout_fraction), or label some images and run vl2v evaluate",
        )


def _halves(images: Images) -> NDArray[np.int64]:
    """Divide N images into two halves. Changed copies of an image are in the same half as the image."""
    clean = images.view == CLEAN
    half = stratified_folds(images.labels[clean], count=2)
    return np.concatenate([half, np.tile(half[_changed(images.domain[clean])], len(VIEWS))])


def _changed(domain: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the images of which changed copies are made: the first `MOST_CHANGED` of each domain."""
    rng = np.random.default_rng(1)
    parts = [rng.permutation(np.flatnonzero(domain == value))[:MOST_CHANGED] for value in np.unique(domain)]
    return np.sort(np.concatenate(parts))


def _frozen(config: RunConfig, student: Student) -> nn.Module | None:
    """Return the student's backbone with its pretrained weights; None if they are not available."""
    try:
        return open_student(config).module.eval().to(student.device)
    except (Vl2vError, OSError, RuntimeError, ValueError):
        return None


def _measure(
    student: Student, frozen: nn.Module | None, root: Path, predictions: Predictions, domain: NDArray[np.int64],
    progress: Progress,
) -> tuple[Images, Outputs]:  # fmt: skip
    """Compute the features of validation images and of changed copies, and the outputs for the validation images."""
    try:
        pixels = torch.stack([student.preprocess.pixels(root / path) for path in predictions.path.tolist()])
    except (OSError, UnreadableImageError) as error:
        raise DataError(
            "The validation images of the run cannot be read.",
            expected=f"the images that it was trained on, in {shown(root)}",
            found=str(error),
            next_step=f"put them back, or {MOVED}; vl2v expect compares the new images with them",
        ) from error
    copies, rng = _changed(domain), np.random.default_rng(0)
    every: list[Outputs] = []
    with (
        using_threads(student_threads(student, len(pixels) + len(copies) * len(VIEWS))),
        progress.stage("validation images and changed copies", len(pixels) + len(copies) * len(VIEWS)) as advance,
    ):
        for view in range(len(VIEWS) + 1):
            batch = pixels if view == CLEAN else apply_change(pixels[copies], view, rng)
            parts = []
            for part in model_outputs(student, frozen, batch):
                parts.append(part)
                advance(len(part[0]))
            every.append(join_outputs(parts, frozen is None))
    rows = np.concatenate([np.arange(len(pixels)), np.tile(copies, len(VIEWS))])
    view_of = np.repeat(np.arange(len(VIEWS) + 1), [len(pixels), *[len(copies)] * len(VIEWS)])
    features = np.concatenate([one.features for one in every])
    before = features if frozen is None else np.concatenate([one.frozen for one in every])
    return Images(features, before, predictions.label[rows], domain[rows], view_of), every[CLEAN]
