"""A saved student on a folder of labelled images, or on any images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vl2v.config import DataConfig
from vl2v.errors import ConfigError, DataError
from vl2v.job.evaluation import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    UNSPLIT,
    Evaluation,
    Row,
    calibration_error,
    student_logits,
    top1,
)
from vl2v.job.prepare import Places, list_folder, read_task, split_task
from vl2v.progress import Progress, Silent
from vl2v.student.model import Student
from vl2v.task.files import FileIndex
from vl2v.task.folder import Task
from vl2v.task.pixels import PixelCache
from vl2v.task.splits import Indices
from vl2v_runtime.imaging import SUFFIXES, UnreadableImageError, decode
from vl2v_runtime.inputs import images_of


def evaluate(
    student: Student,
    data: DataConfig,
    *,
    domains: Sequence[str] = (),
    places: Places | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a saved student on a folder.

    On the very data it learnt from, its source domains are measured on their validation images only. On any other
    data all images count, and the role says so.

    Args:
        student: a loaded one.
        data: the folder, and whether bad files are left out.
        domains: which domains, empty for all.
        places: where the pixel cache is.
        progress: told of the scan.

    Raises:
        DataError: if the folder has faults, or a class that the student does not know.
        ConfigError: if a domain is unknown.
    """
    places, progress = places or Places(), progress or Silent()
    index, cache = FileIndex(places.cache / "files.sqlite"), PixelCache(places.cache, student.preprocess.size)
    try:
        task, _ = read_task(list_folder(data), data, index, cache, progress)
        if unknown := [domain for domain in domains if domain not in task.domains]:
            expected = f"one or more of {', '.join(task.domains)}"
            step = "correct --domain"
            raise ConfigError("No such domain.", expected=expected, found=", ".join(unknown), next_step=step)
        labels = class_numbers(student, task)
        rows = []
        for domain, (role, part) in _parts(student, task).items():
            if domain in domains or not domains:
                logits = student_logits(student, cache.map(), cache.slots(task.digests[part]))
                found = (top1(logits, labels[part]), None, calibration_error(logits, labels[part]))
                rows.append(Row(domain, role, len(part), *found))
        return Evaluation(tuple(rows))
    finally:
        index.close()
        cache.close()


def class_numbers(student: Student, task: Task) -> NDArray[np.int64]:
    """The student's class of every image of a task, [N] int64.

    Raises:
        DataError: if the task has a class that the student does not know.
    """
    places = {name: i for i, name in enumerate(student.classes)}
    if unknown := [name for name in task.names if name not in places]:
        expected = f"classes among {', '.join(student.classes)}"
        step = "rename the folders, or teach the student with add_class"
        found = ", ".join(unknown)
        raise DataError("The student does not know a class.", expected=expected, found=found, next_step=step)
    return np.array([places[name] for name in task.names], dtype=np.int64)[task.labels]


def _parts(student: Student, task: Task) -> dict[str, tuple[str, Indices]]:
    """Role and positions of every domain, from the student's own split where the data are those it learnt from."""
    made = student.provenance
    if made.get("data", {}).get("digest") != task.digest():
        return {domain: (UNSPLIT, task.rows_of(domain)) for domain in task.domains}
    split = split_task(task, DataConfig(**made["config"]["data"]), made["seed"])
    parts = {domain: (IN_DOMAIN, rows) for domain, rows in split.validation.items()}
    return parts | {domain: (OUT_OF_DOMAIN, rows) for domain, rows in split.test.items()}


@dataclass(frozen=True)
class Answer:
    """What a student says of one image.

    Attributes:
        path: the image.
        label: the most probable class; empty if the file could not be read.
        probability: of that class, in [0, 1].
        fault: why the file could not be read, or empty.
    """

    path: str
    label: str
    probability: float
    fault: str = ""


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """Files as given, folders searched at any depth, in sorted order.

    Raises:
        DataError: if an input is missing, or there is no image at all.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.exists():
            expected, step = "an image or a folder of images", "check the path"
            raise DataError(f"{path} is missing.", expected=expected, found="nothing of that name", next_step=step)
        if path.is_dir():
            found += images_of(path)
        else:
            found.append(path)
    if not found:
        raise DataError("No image to predict.", expected=", ".join(sorted(SUFFIXES)), found="none in the folders given")
    return found


def answers(student: Student, paths: Sequence[Path], batch_size: int = 64) -> Iterator[Answer]:
    """Classify files, in their order; an unreadable one becomes an answer with its fault."""
    for start in range(0, len(paths), batch_size):
        images = [_try(path) for path in paths[start : start + batch_size]]
        rows = iter(student.predict_proba([image for image in images if not isinstance(image, str)], batch_size))
        for path, image in zip(paths[start:], images, strict=False):
            if isinstance(image, str):
                yield Answer(str(path), "", 0.0, image)
            else:
                row = next(rows)
                yield Answer(str(path), student.classes[int(row.argmax())], float(row.max()))


def _try(path: Path) -> Image.Image | str:
    """The decoded image, or why there is none."""
    try:
        return decode(path)
    except UnreadableImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
