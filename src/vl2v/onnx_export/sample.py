"""Images for calibrating an exported file and for measuring its parity with the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v.config import DataConfig
from vl2v.data.caches import open_caches
from vl2v.data.images import ImageDataset
from vl2v.data.splits import TEST, Indices
from vl2v.data.tables.base import is_table
from vl2v.errors import RunError
from vl2v.evaluation.class_numbers import class_numbers
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.locations import StoragePaths
from vl2v.planning.prepare import open_folder, read_datasets
from vl2v.planning.split import match_domains, split_of_student
from vl2v.progress import Progress
from vl2v.student.files import CHANGES
from vl2v.student.model import Student
from vl2v.student.preprocess import Preprocess

CHECKED = 5_000  # maximum number of compared images; more would take longer without changing the result
CALIBRATED = 256  # images to calibrate INT8 on
DRAWN = 64  # number of random images
CHUNK = 32

VALIDATION = "validation images of the sources"
ALL = "images of a folder that is not its training data"
RANDOM = "random images"


@dataclass(frozen=True)
class Sample:
    """Images for comparison and calibration.

    Attributes:
        what: origin of the compared images: `VALIDATION`, `ALL` or `RANDOM`.
        pixels: [slots, S, S, 3] uint8.
        slots: [N] indices of the compared images in `pixels`.
        labels: [N] class indices. None for random images and images of unknown class.
        domains: [N] domain of every image. None for random images.
        calibration: [M] indices of the calibration images in `pixels`. Empty for random images.
    """

    what: str
    pixels: NDArray[np.uint8]
    slots: Indices
    labels: NDArray[np.int64] | None
    domains: NDArray[np.str_] | None
    calibration: Indices
    reference: Reference = LABELS


def batches(preprocess: Preprocess, pixels: NDArray[np.uint8], slots: Indices) -> Iterator[NDArray[np.float32]]:
    """Yield normalised pixels in batches of at most `CHUNK` images, [B, 3, S, S] float32."""
    for start in range(0, len(slots), CHUNK):
        images = torch.from_numpy(pixels[slots[start : start + CHUNK]]).permute(0, 3, 1, 2)
        yield preprocess.normalise(images).contiguous().numpy()


def random_sample(size: int) -> Sample:
    """Return images of noise. They suffice to compare two networks, but not for calibration or accuracy."""
    pixels = np.random.default_rng(0).integers(0, 256, (DRAWN, size, size, 3), dtype=np.uint8)
    return Sample(RANDOM, pixels, np.arange(DRAWN), None, None, np.zeros(0, np.int64))


def run_sample(
    student: Student,
    data: DataConfig,
    storage: StoragePaths,
    progress: Progress,
    teacher: Mapping[str, str] | None = None,
) -> Sample:
    """Draw images of the run, or of another folder with the same classes, with the seed of the student.

    Parity is measured on validation images, and INT8 is calibrated on training images. Held-out domains are not used.
    Another folder has no known split, so both are drawn from all its images except those of held-out domains.

    Args:
        student: a trained student. Its provenance contains the seed.
        teacher: predictions of the teacher for validation images, by path. They replace labels if there are none.

    Raises:
        RunError: if the folder is missing.
        DataError: if the data have errors, or a class that the student does not know.
    """
    if not data.root.exists():
        raise RunError(
            "The images of this run have moved.",
            expected=f"the {'table' if is_table(data.root) else 'folder'} {data.root}",
            found="no such file" if is_table(data.root) else "no such folder",
            next_step="pass their new folder or table: --data DATA",
        )
    with open_caches(storage.cache, student.preprocess.size, student.preprocess.fit) as (index, cache):
        data = data.model_copy(update={"unlabelled": None})  # not needed, and may have moved
        dataset, *_ = read_datasets(open_folder(data, layout_known=True), data, index, cache, progress)
        changes = student.provenance.get(CHANGES, [])
        removed = [name for change in changes for name in change.get("removed", [])]
        labels = class_numbers(student, dataset, removed) if not data.classes else None
        if labels is None and teacher:
            numbers = {name: i for i, name in enumerate(student.classes)}
            labels = np.array([numbers.get(teacher.get(path, ""), -1) for path in dataset.paths], np.int64)
        seed = int(student.provenance.get("seed", 0))
        what, rows, training = _usable_rows(student, dataset, data)
        if labels is not None:
            rows = rows[labels[rows] >= 0]
        rows = np.sort(_draw(rows, CHECKED, seed))
        calibration = _draw(training, CALIBRATED, seed)
        reference = TEACHER if data.classes else LABELS
        names = np.array(dataset.domains)[dataset.domain_of[rows]]
        slots = cache.slots(dataset.digests[rows]), cache.slots(dataset.digests[calibration])
        sample_labels = None if labels is None else labels[rows]
        return Sample(what, cache.map(), slots[0], sample_labels, names, slots[1], reference)


def _usable_rows(student: Student, dataset: ImageDataset, data: DataConfig) -> tuple[str, Indices, Indices]:
    """Return a description of the images to compare, their rows, and the rows of the images to calibrate on."""
    if (split := split_of_student(dataset, student.provenance, data)) is not None:
        validation, training = (np.concatenate(list(part.values())) for part in (split.validation, split.training))
        return VALIDATION, validation, training
    held_out = match_domains(data.held_out, dataset.domains)
    usable = np.ones(len(dataset), np.bool_) if dataset.parts is None else dataset.parts != TEST
    rows = [dataset.rows_of(domain) for domain in dataset.domains if domain not in held_out]
    sources = np.concatenate([part[usable[part]] for part in rows] or [np.arange(len(dataset), dtype=np.int64)])
    return ALL, sources, sources


def _draw(indices: Indices, count: int, seed: int) -> Indices:
    generator = np.random.default_rng([seed, 0xE7907])
    return indices[generator.permutation(len(indices))[:count]]
