"""Estimate the accuracy of a student on unlabelled images of a new site, without queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vl2v.analysis.changed_images import Outputs, join_outputs, model_outputs
from vl2v.analysis.expected import Calibration, Signals, inverse_logit
from vl2v.analysis.intervals import Share, wilson
from vl2v.commands.expect_basis import Basis, basis_of
from vl2v.commands.given_images import find_images
from vl2v.commands.moved import ROOT, StatedLocations, locate_images
from vl2v.errors import DataError
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.faults import explaining
from vl2v.progress import Progress, Silent, warn
from vl2v.runs.folder import RunFolder
from vl2v.runs.storage import storage_of
from vl2v.student.model import Student
from vl2v.threads import using_threads
from vl2v.training.thread_count import student_threads
from vl2v_runtime.drift import Drift
from vl2v_runtime.imaging import UnreadableImageError
from vl2v_runtime.names import shown

MOST_NEW = 1000  # images of the new site that are looked at; more would hardly narrow the interval
FEW = 30  # images of the new site, below which the answer is mostly chance
LABELLED = 100  # images that the advice suggests to label
WORSE = 0.05  # below the accuracy on validation images, from which on something should be done


@dataclass(frozen=True)
class Expected:
    """Estimated accuracy of a student on unlabelled images.

    Attributes:
        accuracy: estimate with a 95% interval, in [0, 1].
        validation: accuracy on the validation images of the source domains, with Wilson's interval.
        images: number of images that the estimate is based on.
        found: number of images of the site, including rows of tables without a usable path.
        unreadable: number of images that could not be read, including these rows.
        confidence: mean calibrated confidence of the student on the new images, in [0, 1].
        agreement: share of images on which a linear probe makes the same prediction, in [0, 1].
        calibration: error of the estimate on source domains that were left out, in log odds.
        distance: 0 if the images are like those of the training domains, 1 if they are as far from them as a training
            domain from the others; None with one source domain.
        drift: comparison with the training domains, as in `vl2v predict`; None without a drift reference.
        warnings: reasons to doubt the estimate.
        reference: what the accuracy compares predictions with: labels, or the teacher's predictions.
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
        """Return the estimate as one line of text."""
        words = "accuracy" if self.reference is LABELS else self.reference.measure
        return (
            f"expected {words}: {self.accuracy.value:.0%} ({self.accuracy.low:.0%} to {self.accuracy.high:.0%}), "
            f"on validation images {self.validation.value:.0%}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, shares in [0, 1]."""
        return asdict(self) | {"reference": self.reference.name, "measure": self.reference.measure, "line": self.line}


def expected_of(basis: Basis, new: Outputs, image_count: int, unreadable: int) -> Expected:
    """Compute the estimate from the outputs for at least one image."""
    images = len(new.logits)
    signals = Signals.of(new.logits.astype(np.float64), basis.temperature, basis.probe(new.frozen))
    distance, beyond = (1.0, False) if basis.distances is None else basis.distances.relative(new.frozen)
    estimate = basis.baseline.estimates(signals)[basis.calibration.estimator]
    share = basis.calibration.share(estimate, images, distance)
    drift = basis.student.trust.drift(new.embeddings) if basis.student.trust and new.embeddings.size else None
    warnings = list(basis.warnings)
    if images < FEW:
        warnings.append(f"{images} images are too few for a good estimate; pass {FEW} or more, e.g. of a whole day")
    if beyond:
        warnings.append(
            "the images are unlike all training domains: in pretrained features, they are farther from each of them "
            "than any training domain is from the others, so the error may be larger than the interval says"
        )
    return Expected(
        share, basis.validation, images, image_count, unreadable, inverse_logit(signals.confidence),
        inverse_logit(signals.agreement), basis.calibration, None if basis.distances is None else distance, drift,
        tuple(warnings), next_step(share, basis.validation, images), basis.reference,
    )  # fmt: skip


def next_step(expected: Share, validation: Share, images: int) -> str:
    """Return the recommended action."""
    low, high = wilson(expected.value * LABELLED, LABELLED)
    check = (
        f"label {LABELLED} of the images and run vl2v evaluate, which narrows the interval to about "
        f"{100 * (high - low) / 2:.0f} points on each side"
    )
    if images < FEW:
        return f"collect more images of the site, or {check}"
    if expected.high < validation.value - WORSE:
        return f"less accurate than on the training domains: repair it with a few queries (vl2v repair), or {check}"
    if expected.value < validation.value - WORSE:
        return f"probably less accurate than on the training domains: {check}; vl2v repair can help with few queries"
    return f"no sign of a loss; to be certain, {check}"


@explaining
def expect(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    column: str | None = None,
    data: StatedLocations = None,
    progress: Progress | None = None,
) -> Expected:
    """Estimate the accuracy of a student on images without labels, with a 95% interval. No teacher is queried.

    The estimate starts from the student's calibrated confidence on the images and from its agreement with a linear
    probe on the pretrained backbone. Its error is measured with probes that leave each source domain out in turn, on
    the run's validation images and on changed copies of them. Labels of the new site and of held-out domains are not
    used. Of more than 1,000 images, 1,000 are drawn at random. Copies of an image count once.

    Args:
        run: folder of a finished run.
        images: one or several images, folders of images at any depth, tables, or datasets of other tools.
        column: column of the paths in a table; None takes that of the run, or else recognises it by its name.
        data: the run's images, if they have moved, or `NewLocations`; the run records them.

    Raises:
        RunError: if the run is not finished, has too few validation images, its classes were changed, or its images
            have moved.
        DataError: if there is no readable image.
    """
    progress = progress or Silent()
    sources = [images] if isinstance(images, str | Path) else images
    folder = RunFolder(Path(run))
    locate_images(folder, data, progress=progress, needed=ROOT)
    inputs, left_out = find_images(
        [Path(path) for path in sources],
        column,
        run_data=folder.config().data.model_dump(mode="json"),
        storage=storage_of(folder.path, uses_store=False),
        progress=progress,
    )
    several = len({image.table for image in inputs}) > 1
    unusable = [image for image in inputs if image.path is None]
    faults = [f"{f'{shown(i.table)}, ' * several}row {i.row:,}: {i.fault}" for i in unusable]
    distinct_paths = {image.path.resolve(): image.path for image in reversed(inputs) if image.path is not None}
    paths = list(distinct_paths.values())[::-1]  # each file counts once
    for text in left_out:
        warn(progress, text)
    basis = basis_of(folder.path, progress)
    sample = [paths[i] for i in np.sort(np.random.default_rng(0).permutation(len(paths))[:MOST_NEW])]
    pixels, copies = _readable(basis.student, sample, faults, progress)
    if copies:
        warn(progress, f"{copies} images are copies of other images and count once")
    if faults:
        warn(progress, f"{len(faults)} images cannot be read and are left out: {'; '.join(faults[:3])}")
    with using_threads(student_threads(basis.student, len(pixels))):
        parts: list[tuple[Tensor, ...]] = []
        with progress.stage("new images", len(pixels)) as advance:
            for part in model_outputs(basis.student, basis.frozen, pixels):
                parts.append(part)
                advance(len(part[0]))
    expected = expected_of(basis, join_outputs(parts, basis.frozen is None), len(paths) + len(unusable), len(faults))
    for text in expected.warnings:
        warn(progress, text)
    return expected


def _readable(student: Student, paths: Sequence[Path], faults: list[str], progress: Progress) -> tuple[Tensor, int]:
    """Read images, and append the faults of the others to `faults`.

    Returns:
        (pixels [N, 3, S, S] uint8 of different images, number of copies).
    """
    rows: dict[bytes, Tensor] = {}
    copies = 0
    with progress.stage("reading new images", len(paths)) as advance:
        for path in paths:
            try:
                pixels = student.preprocess.pixels(path)
                copies += int(rows.setdefault(sha256(pixels.numpy().tobytes()).digest(), pixels) is not pixels)
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
    return torch.stack(list(rows.values())), copies
