"""Parity of an exported file with its student on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.errors import StudentError
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.onnx_export.sample import CHUNK, Sample
from vl2v_runtime.model import Model

FLOAT_TOLERANCE = 1e-4  # relative to the largest logit; float32 sums in a different order differ by about 1e-6

Floats = NDArray[np.float32]
Outputs = tuple[Floats, Floats | None]  # logits [N, K], embeddings [N, D]


@dataclass(frozen=True)
class Compared:
    """Comparison of an exported file with its student on the same images.

    Attributes:
        logits: largest absolute difference of a logit.
        logits_relative: this difference divided by the largest logit of the student.
        embedding: largest difference of a component of an embedding of length one. None without a text head.
        agreement: share of images with the same prediction, in [0, 1].
        accuracy: accuracy of the file in [0, 1]. Without labels, the agreement with the teacher. None for random
            images, or if the predictions of the teacher are unknown.
        student: accuracy of the student in [0, 1], or None.
        domains: (accuracy of the file, accuracy of the student) by domain.
        quantised: how the file was quantised. None for float32.
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
        """Loss of accuracy compared with the student, in percentage points."""
        return None if self.accuracy is None or self.student is None else 100 * (self.student - self.accuracy)


def compare(model: Model, truth: Outputs, sample: Sample) -> Compared:
    """Compare an exported file with its student on the same images.

    Args:
        truth: logits [N, K] and embeddings [N, D] of the student; see `vl2v.evaluation.evaluation.student_answers`.
    """
    logits, embedding = _of_model(model, sample)
    difference = float(np.abs(logits - truth[0]).max())
    predictions, student_predictions = logits.argmax(axis=1), truth[0].argmax(axis=1)
    comparison = Compared(
        bytes=model.path.stat().st_size,
        images=len(logits),
        logits=difference,
        logits_relative=difference / max(float(np.abs(truth[0]).max()), 1e-12),
        embedding=None if embedding is None or truth[1] is None else float(np.abs(embedding - truth[1]).max()),
        agreement=float((predictions == student_predictions).mean()),
        quantised=model.metadata.quantised,
    )
    if sample.labels is None or sample.domains is None:
        return comparison
    hits = np.stack([predictions == sample.labels, student_predictions == sample.labels])
    parts = {str(domain): hits[:, sample.domains == domain].mean(axis=1) for domain in np.unique(sample.domains)}
    return replace(
        comparison,
        accuracy=float(hits[0].mean()),
        student=float(hits[1].mean()),
        domains={domain: (float(of_file), float(of_student)) for domain, (of_file, of_student) in parts.items()},
    )


def allowed_images(tolerance: float, images: int) -> int:
    """Return how many images INT8 may lose: `tolerance` percent, but at least one, which a rounding can decide."""
    return max(int(tolerance > 0), math.floor(tolerance * images / 100 + 1e-9))


def _of_model(model: Model, sample: Sample) -> Outputs:
    """Run the file with the normalisation of the runtime, so that wrong constants in the file are noticed."""
    parts = [sample.slots[start : start + CHUNK] for start in range(0, len(sample.slots), CHUNK)]
    rows = [model.run(model.normalise(sample.pixels[part])) for part in parts]
    embeddings = [embedding for _, embedding in rows if embedding is not None]
    return np.concatenate([logits for logits, _ in rows]), np.concatenate(embeddings) if embeddings else None


def check_parity(name: str, comparison: Compared, tolerance: float, reference: Reference = LABELS) -> None:
    """Check that a file may be used in place of its student.

    Args:
        comparison: its comparison with the student.
        tolerance: accepted loss of accuracy of INT8, in percentage points, and at least one image unless it is 0.
            Without accuracy, of different predictions.

    Raises:
        StudentError: if float32 differs by more than `FLOAT_TOLERANCE`, or INT8 loses more than `tolerance`.
    """
    if comparison.quantised is None:
        embedding = comparison.embedding or 0.0
        worst = max(comparison.logits_relative, embedding)
        if not worst <= FLOAT_TOLERANCE:  # written so that NaN is rejected
            raise StudentError(
                f"{name} disagrees with the student and was rejected.",
                expected=f"differences of at most {FLOAT_TOLERANCE:g} of the largest logit, and of an embedding",
                found=f"{comparison.logits_relative:.2g} and {embedding:.2g} on {comparison.images:,} images",
                next_step="report this with the name of the backbone and the versions of torch, onnx and onnxruntime",
            )
        return
    points = 100 * (1 - comparison.agreement) if comparison.lost is None else comparison.lost
    lost, allowed = round(points * comparison.images / 100), allowed_images(tolerance, comparison.images)
    if not lost <= allowed:
        how = "lost" if comparison.lost is not None else "with another prediction than the student's"
        raise StudentError(
            f"{name} loses too much {reference.measure.removeprefix('top-1 ')} and was rejected.",
            expected=f"at most {allowed:,} of {comparison.images:,} images {how} ({tolerance:g} points"
            + (", or one image)" if allowed * 100 > tolerance * comparison.images else ")"),
            found=f"{lost:,} images {how} ({points:.2f} points)",
            next_step="use the file in float32, or accept the loss with --tolerance",
        )
