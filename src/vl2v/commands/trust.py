"""Fit the trust data of a finished run again from its saved predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.commands.reject import KnownImages, logits_of, negative_texts
from vl2v.commands.run_images import embed_images, sample_rows
from vl2v.data.splits import Indices
from vl2v.errors import RunError, StudentError
from vl2v.evaluation.evaluation import IN_DOMAIN, Row, row_of
from vl2v.evaluation.predictions import Predictions, read_predictions
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.faults import reading
from vl2v.hints import resume_command
from vl2v.locations import StoragePaths
from vl2v.onnx_export.exported import exported, mark_trust
from vl2v.progress import Progress, warn
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.storage import made_here, storage_of
from vl2v.student.files import CHANGES, load
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase.ledger import Quote
from vl2v.trust import files
from vl2v.trust.drift import MAX_IMAGES, fit_reference, share_unusual
from vl2v.trust.fit import fit
from vl2v.trust.rejection import apply_thresholds
from vl2v_runtime.trust import NEGATIVES, Trust

SIZES = (1, 8, 32)  # of the batches that drift is told for


@dataclass(frozen=True)
class Reject:
    """A change of the negative texts of a student.

    Attributes:
        add: whether to give it some; False removes those it has.
        texts: a text file with one noun per line; None uses the list of vl2v.
        budget: the most to spend; None spends nothing on a teacher that charges.
        teacher: the run's teacher by another name, or opened; None opens the one that the run names.
        storage: paths of the store; None uses the run's own.
    """

    add: bool = True
    texts: Path | None = None
    budget: Decimal | None = None
    teacher: str | Teacher | None = None
    storage: StoragePaths | None = None


@dataclass(frozen=True)
class DomainTrust:
    """What trust means on one domain.

    Attributes:
        row: accuracy, calibration error before and after, area under the risk-coverage curve.
        answered: by coverage of the sources' validation images, the share of this domain's images answered, and the
            share of these answers that is wrong, by confidence; the latter is None if nothing is answered.
        unusual: by batch size, the share of this domain's batches that are called unusual, None if it has fewer
            images; empty without a reference. On a source the reference knows these images.
        known: by coverage, the share of this domain's images accepted by the score against negative texts; empty if
            the student has none. Thresholds are fitted on the validation images of the sources.
    """

    row: Row
    answered: Mapping[float, tuple[float, float | None]]
    unusual: Mapping[int, float | None]
    known: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Refitted:
    """A run's trust, fitted again, and what it does on each domain."""

    trust: Trust
    domains: tuple[DomainTrust, ...]
    reference: Reference = LABELS

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the reference's vectors are left out."""
        left_out = ("domains", "drift", "negatives")
        trust = {key: value for key, value in self.trust.to_dict().items() if key not in left_out}
        if self.trust.negatives is not None:
            trust["negative_texts"] = list(self.trust.negatives.texts)
        answered = [
            {f"{c:g}": {"answered": share, "wrong": wrong} for c, (share, wrong) in domain.answered.items()}
            for domain in self.domains
        ]
        rows = [
            asdict(domain.row) | {"coverages": part, "unusual": {str(n): share for n, share in domain.unusual.items()}}
            for domain, part in zip(self.domains, answered, strict=True)
        ]
        for row, domain in zip(rows, self.domains, strict=True):
            if domain.known:
                row["negatives"] = {f"{c:g}": share for c, share in domain.known.items()}
        said = {} if self.reference is LABELS else {"measure": self.reference.measure}
        return said | {"trust": trust, "domains": rows}


def refit(path: Path, progress: Progress, reject: Reject | None = None) -> Refitted:
    """Fit a finished run's trust from `predictions.npz`, write it next to the student and into its exported files.

    The reference for drift and the thresholds of negative texts need embeddings, which are computed if the run's images
    are where they were. Otherwise these parts stay as they are.

    Args:
        path: folder of the run.
        progress: receives the progress.
        reject: the change of the negative texts; None leaves those that the student has.

    Raises:
        RunError: if the run saved no predictions, or none on validation images, or negative texts are to be added and
            its images have moved, or those of the student do not fit the new temperature.
        StudentError: if it has no student, or negative texts are to be added to one with a linear classifier.
        BudgetError: before anything is sent that would exceed the budget.
        TeacherError: if the teacher is not the student's, or returns no usable response.
    """
    with alone_in(path, "vl2v trust"):
        return _refit(path, progress, reject)


def quote_reject(path: Path, reject: Reject) -> Quote:
    """Compute what adding negative texts would cost, without spending anything; see `refit`."""
    texts = negative_texts(Student.load(RunFolder(path).student), reject.texts, reject.teacher, path)
    return texts.quote(reject.storage or storage_of(path))


def _refit(path: Path, progress: Progress, reject: Reject | None) -> Refitted:
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
    student = _loaded(folder, progress)
    texts = None
    if reject is not None and reject.add:
        texts = negative_texts(student, reject.texts, reject.teacher, path)
    sampled, embeddings = np.zeros(0, np.int64), None
    if student.head is not None:
        sampled = sample_rows(predictions, MAX_IMAGES)
        paths = [folder.config().data.folder / predictions.path[i] for i in sampled]
        embeddings = embed_images(student, paths, progress, "drift cannot be measured")
    if embeddings is not None:
        of_sources = sources[sampled]
        seen = sampled[of_sources]
        reference = fit_reference(embeddings[of_sources], predictions.domain[seen], predictions.answers[seen])
        trust = replace(trust, reference=reference)
        images = KnownImages(student, embeddings[of_sources], predictions.label[seen])
        if reject is None and student.trust is not None:
            trust = images.with_negatives(trust, student.trust.negatives)
        elif reject is not None and texts is not None:
            storage = reject.storage or storage_of(path)
            vectors = texts.buy(storage, reject.budget, str(path.resolve()), progress)
            trust = images.with_negatives(trust, images.select(texts.nouns, vectors))
    elif texts is not None:
        raise RunError(
            "The threshold of negative texts is fitted on the run's validation images.",
            expected=f"the images in {folder.config().data.folder}",
            found="they have moved",
            next_step="move them back, and repeat the command; nothing was spent",
        )
    elif student.trust is not None:
        trust = _without_images(trust, student.trust, reject, folder)
    student.trust = trust
    if student.provenance.get(CHANGES):
        mark_trust(student)
    files.save(student.trust, folder.student)
    for file in exported(path):
        from vl2v.onnx_export.onnx import rewrite_trust

        rewrite_trust(file, student.trust.to_dict())
    domains = tuple(_domain(student, predictions, name, sampled, embeddings) for name in predictions.domains)
    return Refitted(student.trust, domains, TEACHER if folder.config().data.classes else LABELS)


def _without_images(fitted: Trust, earlier: Trust, reject: Reject | None, folder: RunFolder) -> Trust:
    """Return fitted trust data with those parts of the earlier ones that only the images can fit again.

    They were fitted on the same images and for the same student. The thresholds of negative texts hold for the
    temperature that they were fitted with.

    Raises:
        RunError: if the temperature is another one now.
    """
    fitted = replace(fitted, reference=earlier.reference)
    if earlier.negatives is None or reject is not None:
        return fitted
    if not math.isclose(fitted.temperature, earlier.temperature, rel_tol=1e-6):
        raise RunError(
            "The thresholds of the negative texts cannot be fitted again.",
            expected=f"the images in {folder.config().data.folder}",
            found="they have moved",
            next_step="move them back, and repeat the command; or remove the negative texts: --no-reject",
        )
    thresholds = {NEGATIVES: earlier.reject[NEGATIVES]}
    return replace(fitted, reject={**fitted.reject, **thresholds}, negatives=earlier.negatives)


def _loaded(folder: RunFolder, progress: Progress) -> Student:
    """Load the student of a run. Old trust data that are broken are left out, and replaced at the end."""
    try:
        return Student.load(folder.student)
    except StudentError:
        student = load(folder.student, trust=False)
        warn(progress, "the old trust.json is damaged; if it has negative texts, add them again: --reject")
        return student


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


def _domain(
    student: Student, predictions: Predictions, name: str, sampled: Indices, embeddings: NDArray[np.float32] | None
) -> DomainTrust:
    trust = student.trust
    assert trust is not None
    chosen = predictions.domain == name
    part = predictions.of(chosen)
    marks = apply_thresholds(trust, part.student, part.answers == part.label)
    answered = {mark.target: (mark.coverage, mark.risk if mark.coverage else None) for mark in marks}
    unusual, known = {}, {}
    if trust.reference is not None and embeddings is not None:
        rows = embeddings[chosen[sampled]]
        unusual = {size: share_unusual(trust.reference, rows, size) for size in SIZES}
    if trust.negatives is not None and embeddings is not None:
        rows = embeddings[chosen[sampled]]
        found = trust.scores(logits_of(student, rows), NEGATIVES, rows)
        known = {c: float((found >= trust.threshold(NEGATIVES, c)).mean()) for c in trust.coverages}
    row = row_of(name, str(part.role[0]), part.student, part.label, trust.temperature)
    return DomainTrust(row, answered, unusual, known)
