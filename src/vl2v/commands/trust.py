"""Fit the trust data of a finished run again from its saved predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.commands.moved import MOVED, ROOT, NewLocations, StatedLocations, locate_images
from vl2v.commands.reject import KnownImages, logits_of, negative_texts
from vl2v.commands.run_images import embed_images, sample_rows
from vl2v.data.splits import Indices
from vl2v.errors import RunError, StudentError
from vl2v.evaluation.evaluation import IN_DOMAIN, DomainScore, domain_score
from vl2v.evaluation.predictions import Predictions, read_predictions
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.faults import reading
from vl2v.hints import resume_command
from vl2v.locations import StoragePaths
from vl2v.onnx_export.exported import changeable_exports, mark_trust
from vl2v.progress import Progress, warn
from vl2v.runs.folder import RunFolder
from vl2v.runs.ownership import alone_in
from vl2v.runs.storage import made_here, storage_of
from vl2v.student.files import CHANGES, load
from vl2v.student.model import Student
from vl2v.teacher.base import Teacher
from vl2v.teacher.purchase.ledger import Budget, Quote
from vl2v.teacher.purchase.store import EmbeddingStore
from vl2v.trust import files
from vl2v.trust.drift import MAX_IMAGES, fit_reference, share_unusual
from vl2v.trust.fit import fit
from vl2v.trust.rejection import apply_thresholds
from vl2v_runtime.trust import NEGATIVES, Trust

SIZES = (1, 8, 32)  # batch sizes for which drift is reported


@dataclass(frozen=True)
class Reject:
    """A change of the negative texts of a student.

    Attributes:
        add: whether to add negative texts; False removes those of the student.
        texts: a text file with one noun per line; None uses the list of vl2v.
        budget: maximum amount to spend; None spends nothing on a teacher that charges.
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
    """Effect of the trust data on one domain.

    Attributes:
        row: accuracy, calibration error with and without the temperature, and area under the risk-coverage curve.
        answered: by target coverage, the share of images accepted by confidence, and the error rate among them; None if
            none is accepted. Thresholds are fitted on the validation images of the source domains.
        unusual: by batch size, the share of batches that the drift detection calls unusual; None with fewer images.
            Empty without a drift reference. The reference of a source domain was fitted on the same images.
        accepted_shares: by target coverage, the share of images accepted by the score against negative texts. Empty
            without negative texts.
    """

    row: DomainScore
    answered: Mapping[float, tuple[float, float | None]]
    unusual: Mapping[int, float | None]
    accepted_shares: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Refitted:
    """The refitted trust data of a run, and their effect on each domain."""

    trust: Trust
    domains: tuple[DomainTrust, ...]
    reference: Reference = LABELS

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, without embeddings."""
        omitted = ("domains", "drift", "negatives")
        trust = {key: value for key, value in self.trust.to_dict().items() if key not in omitted}
        if self.trust.negatives is not None:
            trust["negative_texts"] = list(self.trust.negatives.texts)
        rows = []
        for domain in self.domains:
            answered = {f"{c:g}": {"answered": part, "wrong": wrong} for c, (part, wrong) in domain.answered.items()}
            unusual = {str(n): share for n, share in domain.unusual.items()}
            negatives = (
                {"negatives": {f"{c:g}": share for c, share in domain.accepted_shares.items()}}
                if domain.accepted_shares
                else {}
            )
            rows.append(asdict(domain.row) | {"coverages": answered, "unusual": unusual} | negatives)
        measure = {} if self.reference is LABELS else {"measure": self.reference.measure}
        return measure | {"trust": trust, "domains": rows}


def refit(path: Path, progress: Progress, reject: Reject | None = None, data: StatedLocations = None) -> Refitted:
    """Fit the trust data of a finished run from `predictions.npz`, and write them to student and exported files.

    The drift reference and the thresholds of negative texts need embeddings. They are computed if the images of the run
    have not been moved. Otherwise, these parts do not change.

    Args:
        reject: change of the negative texts; None leaves those of the student.
        data: the run's images, if they have moved, or `NewLocations`; the run records them.

    Raises:
        RunError: if the run has no saved predictions, or none on validation images; if negative texts are to be added
            and its images have moved; or if the existing negative texts do not fit the new temperature.
        StudentError: if there is no student, or negative texts are to be added to one with a linear classifier.
        BudgetError: before anything is sent that would exceed the budget.
        TeacherError: if the teacher is not the student's, or returns no usable response.
    """
    if NewLocations.of(data):
        locate_images(RunFolder(path), data, progress=progress, needed=ROOT)
    with alone_in(path, "vl2v trust"):
        return _refit(path, progress, reject)


def quote_reject(path: Path, reject: Reject) -> Quote:
    """Compute what adding negative texts would cost, without spending anything; see `refit`."""
    texts = negative_texts(Student.load(RunFolder(path).student), reject.texts, reject.teacher, path)
    with closing(EmbeddingStore((reject.storage or storage_of(path)).store)) as store:
        return texts.quote(store)


def _refit(path: Path, progress: Progress, reject: Reject | None) -> Refitted:
    folder = RunFolder(path)
    predictions = read_answers(folder)
    trust = _fit(predictions)
    student = _loaded(folder, progress)
    changeable_exports(path, folder.origin())  # raises before money is spent
    texts = negative_texts(student, reject.texts, reject.teacher, path) if reject is not None and reject.add else None
    sample, embeddings = np.zeros(0, np.int64), None
    if student.head is not None:
        sample = sample_rows(predictions, MAX_IMAGES)
        paths = [folder.config().data.folder / predictions.path[i] for i in sample]
        embeddings = embed_images(student, paths, progress, "drift cannot be measured")
    if embeddings is not None:
        in_domain = predictions.role[sample] == IN_DOMAIN
        validation, embedded = predictions.of(sample[in_domain]), embeddings[in_domain]
        trust = replace(trust, reference=fit_reference(embedded, validation.domain, validation.answers))
        images = KnownImages(student, embedded, validation.label)
        if reject is None and student.trust is not None:
            trust = images.with_negatives(trust, student.trust.negatives)
        elif reject is not None and texts is not None:
            card = texts.teacher.describe()
            budget = Budget(reject.budget, currency=card.price.currency, less="fewer --reject-texts")
            with closing(EmbeddingStore((reject.storage or storage_of(path)).store)) as store:
                texts.buy(store, budget, str(path.resolve()), progress, "negative texts")
                bought = store.texts(card, texts.texts)
            trust = images.with_negatives(trust, images.select(list(texts.prompts), bought))
    elif texts is not None:
        raise RunError(
            "The negative texts get no threshold without the run's validation images.",
            expected=f"the images in {folder.config().data.folder}",
            found="they have moved",
            next_step=f"{MOVED}; nothing was spent",
        )
    elif student.trust is not None:
        trust = _without_images(trust, student.trust, reject, folder)
    student.trust = trust
    if student.provenance.get(CHANGES):
        mark_trust(student)
    _write(student.trust, folder)
    domains = tuple(_domain(student, predictions, name, sample, embeddings) for name in predictions.domains)
    return Refitted(student.trust, domains, TEACHER if folder.config().data.classes else LABELS)


def _fit(predictions: Predictions) -> Trust:
    sources = predictions.of(predictions.role == IN_DOMAIN)
    trust = fit(sources.student, sources.label, sources.domain, styled_temperature=sources.styled_temperature)
    if trust is None:
        raise RunError(
            "This run has no validation images to fit trust data on.",
            expected="validation images of the source domains",
            found="none",
            next_step="train with validation images: data.holdout_fraction above 0",
        )
    return trust


def _write(trust: Trust, folder: RunFolder) -> None:
    """Write the trust data to the exported files of a run and to the student.

    The small file of the student is written last, so that a full disk does not leave it with other data than the
    exported files.
    """
    origin = folder.origin()
    for file in changeable_exports(folder.path, origin):
        from vl2v.onnx_export.onnx import rewrite_trust

        rewrite_trust(file, trust.to_dict())
    files.save(trust, folder.student, origin)


def _without_images(fitted: Trust, earlier: Trust, reject: Reject | None, folder: RunFolder) -> Trust:
    """Return fitted trust data with the drift reference and the negative texts of earlier ones.

    These parts were fitted on the same images for the same student. The thresholds of negative texts are only valid for
    the temperature with which they were fitted.
    """
    fitted = replace(fitted, reference=earlier.reference)
    if earlier.negatives is None or reject is not None:
        return fitted
    if not math.isclose(fitted.temperature, earlier.temperature, rel_tol=1e-6):
        raise RunError(
            "The thresholds of the negative texts cannot be fitted again.",
            expected=f"the images in {folder.config().data.folder}",
            found="they have moved",
            next_step=f"{MOVED}; or remove the negative texts: --no-reject",
        )
    thresholds = {NEGATIVES: earlier.reject[NEGATIVES]}
    return replace(fitted, reject={**fitted.reject, **thresholds}, negatives=earlier.negatives)


def _loaded(folder: RunFolder, progress: Progress) -> Student:
    """Load the student of a run. Damaged trust data are ignored, with a warning, and replaced later."""
    try:
        return Student.load(folder.student)
    except StudentError:
        student = load(folder.student, trust=False)
        warn(
            progress,
            "the old trust.json is damaged or of another student; if it has negative texts, add them again: --reject",
        )
        return student


def read_answers(folder: RunFolder) -> Predictions:
    """Read the saved predictions of a finished run.

    Raises:
        RunError: if the run has none, or those of another student.
    """
    if not folder.predictions_file.is_file():
        step = f"write it again: {resume_command(folder.path)}"
        if not folder.config_file.is_file():
            step = "pass the folder of a finished run; for other images see vl2v evaluate"
        raise RunError(
            f"{folder.path} has no saved predictions.", expected="predictions.npz", found="none", next_step=step
        )
    with reading(folder.predictions_file, f"write it again: {resume_command(folder.path)}"):
        return read_predictions(folder.predictions_file, made_here(folder.path), origin=folder.origin())


def _domain(
    student: Student, predictions: Predictions, name: str, sample: Indices, embeddings: NDArray[np.float32] | None
) -> DomainTrust:
    trust = student.trust
    assert trust is not None
    mask = predictions.domain == name
    part = predictions.of(mask)
    marks = apply_thresholds(trust, part.student, part.answers == part.label)
    answered = {mark.target: (mark.coverage, mark.risk if mark.coverage else None) for mark in marks}
    unusual, accepted_shares = {}, {}
    rows = None if embeddings is None else embeddings[mask[sample]]
    if trust.reference is not None and rows is not None:
        unusual = {size: share_unusual(trust.reference, rows, size) for size in SIZES}
    if trust.negatives is not None and rows is not None:
        negative_scores = trust.scores(logits_of(student, rows), NEGATIVES, rows)
        accepted_shares = {c: float((negative_scores >= trust.threshold(NEGATIVES, c)).mean()) for c in trust.coverages}
    row = domain_score(name, str(part.role[0]), part.student, part.label, trust.temperature)
    return DomainTrust(row, answered, unusual, accepted_shares)
