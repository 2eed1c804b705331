"""Evaluate a saved student on a folder of labelled images, and classify images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v.commands.given_images import GivenImage
from vl2v.config import DataConfig
from vl2v.data.caches import open_caches
from vl2v.data.classes import only_classes
from vl2v.data.contents import columns_line
from vl2v.data.digest_sample import share_among
from vl2v.data.images import ImageDataset, spelling
from vl2v.data.pixels import Digests
from vl2v.data.splits import TEST as TEST_PART
from vl2v.data.splits import Indices
from vl2v.errors import ConfigError, StudentError
from vl2v.evaluation.class_numbers import class_numbers
from vl2v.evaluation.evaluation import TEST, UNSPLIT, Evaluation, domain_score, split_domains, student_answers
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import list_folder, read_datasets
from vl2v.planning.split import check_domains, split_of_student
from vl2v.progress import Progress, Silent, warn
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess
from vl2v.student.provenance import check_provenance, data_settings
from vl2v.threads import using_threads
from vl2v.training.thread_count import student_threads
from vl2v_runtime.drift import Drift
from vl2v_runtime.imaging import UnreadableImageError
from vl2v_runtime.model import answers_of
from vl2v_runtime.trust import ALL_SCORES, CONFIDENCE, NEGATIVES, refusal

Part = tuple[str, str, Indices]
"""Role, domain, and indices of the images."""

BATCH = 64  # images that are classified at once
MAX_COMPARED = 10_000  # images that are compared with the training domains; more would only use memory


def evaluate(
    student: Student,
    data: DataConfig,
    *,
    domains: Sequence[str] = (),
    storage: StoragePaths | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a saved student on a dataset.

    If the student was trained on this dataset, its source domains are evaluated on their validation images, and on
    their test images if the data state them. In other datasets, the test images that the data state are used. Without
    any, all images are used, with the role ``all images``.

    Args:
        data: the folder or table, and whether faulty files are skipped.
        domains: names of the domains to evaluate; empty for all.

    Raises:
        DataError: if the data have faults, or a class that the student does not know.
        ConfigError: if a domain is unknown.
    """
    check_provenance(student.provenance, "the student")
    storage, progress = storage or StoragePaths(), progress or Silent()
    with open_caches(storage.cache, student.preprocess.size, student.preprocess.fit) as (index, cache):
        dataset, *_ = read_datasets(list_folder(data, layout_known=True), data, index, cache, progress)
        if dataset.columns:
            progress.note(columns_line(dataset.columns))
        domains = check_domains(domains, dataset.domains, "--domain")
        run_parts = _own_parts(student, dataset)
        labels = class_numbers(student, dataset, () if run_parts is None else _held_out_classes(student, dataset))
        if unknown := int((labels < 0).sum()):
            progress.note(f"{unknown:,} images of held-out classes are not evaluated; vl2v classes add adds a class")
        rows, temperature = [], student.trust.temperature if student.trust else None
        parts = [part for part in run_parts or _other_parts(dataset) if part[1] in domains or not domains]
        if run_parts is None:
            _warn_of_training_images(student, dataset.digests[np.concatenate([rows for *_, rows in parts])], progress)
        with using_threads(student_threads(student, sum(len(part) for *_, part in parts))):
            for role, domain, indices in parts:
                part = indices[labels[indices] >= 0]
                logits, _ = student_answers(student, cache.map(), cache.slots(dataset.digests[part]))
                rows.append(domain_score(domain, role, logits, labels[part], temperature, student.classes))
        return Evaluation(tuple(rows))


def _own_parts(student: Student, dataset: ImageDataset) -> list[Part] | None:
    """Return the parts of the run's split, with images of held-out classes; None for images that are not the run's."""
    held_out = _held_out_classes(student, dataset)
    class_folders = [
        folder for folder, name in zip(dataset.folders, dataset.names, strict=True) if name not in held_out
    ]
    training_rows = np.flatnonzero(np.isin(dataset.labels, [dataset.folders.index(folder) for folder in class_folders]))
    split = split_of_student(only_classes(dataset, class_folders) if held_out else dataset, student.provenance)
    if split is None:
        return None
    parts: list[Part] = []
    for role, domain, rows in split_domains(split):
        first = all(domain != other for _, other, _ in parts)
        further_rows = np.setdiff1d(dataset.rows_of(domain), training_rows) if held_out and first else rows[:0]
        parts.append((role, domain, np.concatenate([training_rows[rows] if held_out else rows, further_rows])))
    return parts


def _other_parts(dataset: ImageDataset) -> list[Part]:
    """Return the test images that the data state, or else all images, by domain."""
    every = [(domain, dataset.rows_of(domain)) for domain in dataset.domains]
    if dataset.parts is None or not (dataset.parts == TEST_PART).any():
        return [(UNSPLIT, domain, rows) for domain, rows in every]
    test_parts = [(TEST, domain, rows[dataset.parts[rows] == TEST_PART]) for domain, rows in every]
    return [part for part in test_parts if len(part[-1])]


def _warn_of_training_images(student: Student, digests: Digests, progress: Progress) -> None:
    """Warn if images, by their SHA-256 [N, 32], were used to train the student."""
    run_data = student.provenance.get("data") or {}
    if share := share_among(run_data.get("training_sample", ()), digests):
        training_count = run_data.get("training_images", 0)
        warn(
            progress,
            f"about {share * training_count:,.0f} of the {training_count:,} training images of the student are among "
            f"these {len(digests):,} images, so the accuracy is too high; evaluate images that it has not seen",
        )


def _held_out_classes(student: Student, dataset: ImageDataset) -> set[str]:
    """Return the classes of a dataset that the run of a student held out."""
    names = data_settings(student.provenance).get("held_out_classes") or []
    spellings = {spelling(str(name)) for name in names}
    return {name for name in dataset.names if spelling(name) in spellings}


@dataclass(frozen=True)
class Answer:
    """Prediction for one image.

    Attributes:
        path: path of the image, as the user or the table writes it.
        label: the most probable class; empty if the file cannot be read.
        confidence: probability of this class in [0, 1], calibrated if the student has trust data; 0 if the file cannot
            be read.
        fault: why the file cannot be read; may be empty.
        accepted: whether the score reaches the threshold; None without a coverage, or if the file cannot be read.
        probabilities: probability of every class, in [0, 1]; empty if not requested, or if the file cannot be read.
        row: number of the row in its table; None for an image outside of tables.
        table: the table or dataset, as the user writes it; empty for an image outside of tables.
    """

    path: str
    label: str
    confidence: float
    fault: str = ""
    accepted: bool | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    row: int | None = None
    table: str = ""

    @property
    def probability(self) -> float:
        """The former name of `confidence`."""
        return self.confidence


def classify(
    student: Student,
    images: Sequence[Path | GivenImage],
    *,
    coverage: float | None = None,
    score: str = CONFIDENCE,
    every_class: bool = False,
) -> tuple[list[Answer], Drift | None]:
    """Classify image files. The answer for an unreadable file contains the reason.

    Args:
        images: paths of the images, or what `find_images` returns.
        coverage: share of the validation images of the source domains that reaches the threshold; predictions below it
            are not accepted. None accepts all.
        score: ``confidence``, ``energy``, or ``negatives`` if the student has negative texts.
        every_class: whether answers contain the probabilities of all classes.

    Returns:
        (answers in the order of the images, comparison with the training domains). The latter is None if the student
        has no drift reference.

    Raises:
        StudentError: if there is a coverage and the student has no trust data, or no negative texts for that score.
        ConfigError: if the score or the coverage has no threshold.
    """
    if score not in ALL_SCORES:
        step = "correct --score"
        raise ConfigError("Unknown score.", expected=" or ".join(ALL_SCORES), found=score, next_step=step)
    if coverage is not None:
        _check_threshold(student, score, coverage)
    inputs = [image if isinstance(image, GivenImage) else GivenImage(str(image), image) for image in images]
    with using_threads(student_threads(student, len(inputs))):
        return _classify(student, inputs, coverage, score, every_class)


def _classify(
    student: Student, inputs: Sequence[GivenImage], coverage: float | None, score: str, every_class: bool
) -> tuple[list[Answer], Drift | None]:
    answers: list[Answer] = []
    sampled_embeddings: list[NDArray[np.float32]] = []
    stride = -(-len(inputs) // MAX_COMPARED)
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        images = [_read(student.preprocess, one) for one in batch]
        good = [image for image in images if not isinstance(image, str)]
        projected = student.project_pixels(torch.stack(good)) if good else student.project([])
        logits = student.logits(projected).cpu().numpy()
        needed = student.trust is not None and (student.trust.reference is not None or score == NEGATIVES)
        embeddings = student.embeddings(projected).cpu().numpy() if needed else None
        predictions = iter(answers_of(student.trust, student.classes, logits, embeddings, score, coverage))
        for one, image in zip(batch, images, strict=True):
            if isinstance(image, str):
                answers.append(Answer(one.name, "", 0.0, image, row=one.row, table=one.table))
            else:
                a = next(predictions)
                every = a.probabilities if every_class else {}
                answers.append(Answer(one.name, a.label, a.confidence, "", a.accepted, every, one.row, one.table))
        if student.trust and student.trust.reference and embeddings is not None:
            sampled_embeddings.append(embeddings[::stride])
    drift = student.trust.drift(np.concatenate(sampled_embeddings)) if student.trust and sampled_embeddings else None
    return answers, drift


def _check_threshold(student: Student, score: str, coverage: float) -> None:
    if parts := refusal(student.trust, score, linear=student.head is None):
        raise StudentError(**parts)
    assert student.trust is not None
    try:
        student.trust.threshold(score, coverage)
    except ValueError as error:
        coverages = ", ".join(f"{share:g}" for share in (1.0, *student.trust.coverages))
        raise ConfigError(
            "No threshold was fitted for this --coverage.",
            expected=coverages,
            found=f"{coverage:g}",
            next_step="correct --coverage",
        ) from error


def _read(preprocess: Preprocess, image: GivenImage) -> Tensor | str:
    """Return the pixels [3, S, S] uint8 of an image, or the reason why it cannot be read."""
    if image.path is None:
        return image.fault
    try:
        return preprocess.pixels(image.path)
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
