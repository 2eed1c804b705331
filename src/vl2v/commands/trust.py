"""Fit the trust data of a finished run again from its saved predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import Indices
from vl2v.errors import RunError
from vl2v.evaluation.evaluation import IN_DOMAIN, Row, row_of
from vl2v.evaluation.predictions import Predictions, read_predictions
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.faults import reading
from vl2v.hints import resume_command
from vl2v.onnx_export.exported import exported, mark_trust
from vl2v.progress import Progress, warn
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.storage import made_here
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.trust import files
from vl2v.trust.drift import MAX_IMAGES, fit_reference, share_unusual
from vl2v.trust.fit import fit
from vl2v.trust.rejection import apply_thresholds
from vl2v_runtime.imaging import UnreadableImageError
from vl2v_runtime.trust import Trust

SIZES = (1, 8, 32)  # of the batches that drift is told for
CHUNK = 64


@dataclass(frozen=True)
class DomainTrust:
    """What trust means on one domain.

    Attributes:
        row: accuracy, calibration error before and after, area under the risk-coverage curve.
        answered: by coverage of the sources' validation images, the share of this domain's images answered, and the
            share of these answers that is wrong, by confidence; the latter is None if nothing is answered.
        unusual: by batch size, the share of this domain's batches that are called unusual, None if it has fewer
            images; empty without a reference. On a source the reference knows these images.
    """

    row: Row
    answered: Mapping[float, tuple[float, float | None]]
    unusual: Mapping[int, float | None]


@dataclass(frozen=True)
class Refitted:
    """A run's trust, fitted again, and what it does on each domain."""

    trust: Trust
    domains: tuple[DomainTrust, ...]
    reference: Reference = LABELS

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the reference's vectors are left out."""
        trust = {key: value for key, value in self.trust.to_dict().items() if key not in ("domains", "drift")}
        answered = [
            {f"{c:g}": {"answered": share, "wrong": wrong} for c, (share, wrong) in domain.answered.items()}
            for domain in self.domains
        ]
        rows = [
            asdict(domain.row) | {"coverages": part, "unusual": {str(n): share for n, share in domain.unusual.items()}}
            for domain, part in zip(self.domains, answered, strict=True)
        ]
        said = {} if self.reference is LABELS else {"measure": self.reference.measure}
        return said | {"trust": trust, "domains": rows}


def refit(path: Path, progress: Progress) -> Refitted:
    """Fit a finished run's trust from `predictions.npz`, write it next to the student and into its exported files.

    The reference for drift needs embeddings, which are computed if the run's images are where they were.

    Raises:
        RunError: if the run saved no predictions, or none on validation images.
        StudentError: if it has no student.
    """
    with alone_in(path, "vl2v trust"):
        return _refit(path, progress)


def _refit(path: Path, progress: Progress) -> Refitted:
    folder = RunFolder(path)
    predictions = read_answers(folder)
    sources = predictions.role == IN_DOMAIN
    trust = fit(predictions.student[sources], predictions.label[sources], predictions.domain[sources])
    if trust is None:
        step = "train with validation images: data.holdout_fraction above 0"
        raise RunError(
            "Trust data is fitted on validation images.",
            expected="validation images of the source domains",
            found="none",
            next_step=step,
        )
    if folder.student.is_dir():
        files.save(trust, folder.student)  # the old one may be broken; what takes time is added below
    student = Student.load(folder.student)
    sampled, embeddings = np.zeros(0, np.int64), None
    if student.head is not None:
        sampled = _sample(predictions)
        embeddings = _embed(student, [folder.config().data.folder / predictions.path[i] for i in sampled], progress)
    if embeddings is not None:
        of_sources = sources[sampled]
        seen = sampled[of_sources]
        reference = fit_reference(embeddings[of_sources], predictions.domain[seen], predictions.answers[seen])
        trust = replace(trust, reference=reference)
    student.trust = trust
    if student.provenance.get(CHANGES):
        mark_trust(student)
    files.save(student.trust, folder.student)
    for file in exported(path):
        from vl2v.onnx_export.onnx import rewrite_trust

        rewrite_trust(file, student.trust.to_dict())
    domains = tuple(_domain(trust, predictions, name, sampled, embeddings) for name in predictions.domains)
    return Refitted(trust, domains, TEACHER if folder.config().data.classes else LABELS)


def read_answers(folder: RunFolder) -> Predictions:
    """Return the predictions that a finished run saved.

    Raises:
        RunError: if it saved none.
    """
    if not folder.predictions_file.is_file():
        step = "pass the folder of a finished run; for other images see vl2v evaluate"
        raise RunError(
            f"{folder.path} has no saved predictions.", expected="predictions.npz", found="none", next_step=step
        )
    with reading(folder.predictions_file, f"write it again: {resume_command(folder.path)}"):
        return read_predictions(folder.predictions_file, made_here(folder.path))


def _sample(predictions: Predictions) -> Indices:
    """At most `MAX_IMAGES` rows of every domain."""
    rng = np.random.default_rng(0)
    parts = [np.flatnonzero(predictions.domain == name) for name in predictions.domains]
    return np.sort(np.concatenate([rng.permutation(part)[:MAX_IMAGES] for part in parts]))


def _embed(student: Student, paths: list[Path], progress: Progress) -> NDArray[np.float32] | None:
    """Embeddings of images, [N, D]; None, with a note, if one is not there any more."""
    rows = []
    try:
        with progress.stage("embedding", len(paths)) as advance:
            for start in range(0, len(paths), CHUNK):
                rows.append(student.embed(paths[start : start + CHUNK], CHUNK))
                advance(len(rows[-1]))
    except (OSError, UnreadableImageError) as error:
        warn(progress, f"drift cannot be measured, because the run's images have moved ({error})")
        return None
    return np.concatenate(rows)


def _domain(
    trust: Trust, predictions: Predictions, name: str, sampled: Indices, embeddings: NDArray[np.float32] | None
) -> DomainTrust:
    chosen = predictions.domain == name
    part = predictions.of(chosen)
    marks = apply_thresholds(trust, part.student, part.answers == part.label)
    answered = {mark.target: (mark.coverage, mark.risk if mark.coverage else None) for mark in marks}
    unusual = {}
    if trust.reference is not None and embeddings is not None:
        rows = embeddings[chosen[sampled]]
        unusual = {size: share_unusual(trust.reference, rows, size) for size in SIZES}
    row = row_of(name, str(part.role[0]), part.student, part.label, trust.temperature)
    return DomainTrust(row, answered, unusual)
