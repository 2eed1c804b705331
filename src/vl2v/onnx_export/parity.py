"""Parity of an exported file with its student on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import StudentError
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.onnx_export.sample import CHUNK, Sample
from vl2v_runtime.model import Model

FLOAT_TOLERANCE = 1e-4  # of the greatest logit; float32 sums in another order differ by 1e-6 or so of it

Floats = NDArray[np.float32]
Outputs = tuple[Floats, Floats | None]  # logits [N, K], embeddings [N, D]


@dataclass(frozen=True)
class Compared:
    """A file beside its student, on the same images.

    Attributes:
        bytes: the file's size.
        images: how many were compared.
        logits: greatest difference of a logit.
        logits_relative: that, as a part of the student's greatest logit.
        embedding: greatest difference of an embedding's component, rows being of length one; None without a text head.
        agreement: share of the images with the same most probable class, in [0, 1].
        accuracy: of the file, in [0, 1], over all images; for images without labels agreement with the teacher, and
            None where its answers are not known, or for random images.
        student: of the student.
        domains: (accuracy of the file, of the student) by domain.
        quantised: how the file was quantised; None in float32.
    """

    bytes: int
    images: int
    logits: float
    logits_relative: float
    embedding: float | None
    agreement: float
    accuracy: float | None = None
    student: float | None = None
    domains: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    quantised: Mapping[str, Any] | None = None

    @property
    def lost(self) -> float | None:
        """Points of accuracy that the file lost against the student."""
        return None if self.accuracy is None or self.student is None else 100 * (self.student - self.accuracy)


def compare(model: Model, truth: Outputs, sample: Sample) -> Compared:
    """Hold an exported file against what its student says of the same images.

    Args:
        model: the file.
        truth: the student's logits [N, K] and embeddings [N, D]; see `vl2v.evaluation.evaluation.student_answers`.
        sample: the images.
    """
    logits, embedding = _of_model(model, sample)
    difference = float(np.abs(logits - truth[0]).max())
    ours, theirs = logits.argmax(axis=1), truth[0].argmax(axis=1)
    found = Compared(
        bytes=model.path.stat().st_size,
        images=len(logits),
        logits=difference,
        logits_relative=difference / max(float(np.abs(truth[0]).max()), 1e-12),
        embedding=None if embedding is None or truth[1] is None else float(np.abs(embedding - truth[1]).max()),
        agreement=float((ours == theirs).mean()),
        quantised=model.metadata.quantised,
    )
    if sample.labels is None or sample.domains is None:
        return found
    hits = np.stack([ours == sample.labels, theirs == sample.labels])
    parts = {str(domain): hits[:, sample.domains == domain].mean(axis=1) for domain in np.unique(sample.domains)}
    return replace(
        found,
        accuracy=float(hits[0].mean()),
        student=float(hits[1].mean()),
        domains={domain: (float(own), float(students)) for domain, (own, students) in parts.items()},
    )


def _of_model(model: Model, sample: Sample) -> Outputs:
    """By the runtime's own normalisation, so that wrong constants in the file show."""
    parts = [sample.slots[start : start + CHUNK] for start in range(0, len(sample.slots), CHUNK)]
    rows = [model.run(model.normalise(sample.pixels[part])) for part in parts]
    embeddings = [embedding for _, embedding in rows if embedding is not None]
    return np.concatenate([logits for logits, _ in rows]), np.concatenate(embeddings) if embeddings else None


def refuse(name: str, found: Compared, tolerance: float, reference: Reference = LABELS) -> None:
    """Raise if a file may not be used in its student's place.

    Args:
        name: of the file.
        found: how it compares.
        tolerance: points of accuracy that INT8 may lose; where there is none, of answers that may differ.
        reference: what answers were compared with.

    Raises:
        StudentError: if float32 differs by more than `FLOAT_TOLERANCE`, or INT8 loses more than `tolerance`.
    """
    if found.quantised is None:
        worst = max(found.logits_relative, found.embedding or 0.0)
        if not worst <= FLOAT_TOLERANCE:  # so written that NaN is refused
            raise StudentError(
                f"{name} disagrees with the student and was rejected.",
                expected=f"differences of at most {FLOAT_TOLERANCE:g} of the largest logit, and of an embedding",
                found=f"{found.logits_relative:.2g} and {found.embedding or 0.0:.2g} on {found.images:,} images",
                next_step="report this with the backbone's name and the versions of torch, onnx and onnxruntime",
            )
        return
    lost = 100 * (1 - found.agreement) if found.lost is None else found.lost
    if not lost <= tolerance:
        raise StudentError(
            f"{name} loses too much {reference.measure.removeprefix('top-1 ')}; it was not kept.",
            expected=f"at most {tolerance:g} points less than the student",
            found=f"{lost:.2f} points less on {found.images:,} images",
            next_step="use the file in float32, or accept the loss with --tolerance",
        )
