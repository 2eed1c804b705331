"""The classes of a dataset as a student numbers them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import ImageDataset
from vl2v.errors import DataError
from vl2v.student.files import CHANGES
from vl2v.student.model import Student


def class_numbers(student: Student, dataset: ImageDataset, *, skip_removed: bool = False) -> NDArray[np.int64]:
    """The student's class of every image of a dataset, [N] int64.

    Args:
        student: with its classes.
        dataset: the images.
        skip_removed: give -1 for a class that was removed from the student after training, and do not refuse it.

    Raises:
        DataError: if the dataset has a class that the student does not know.
    """
    places = {name: i for i, name in enumerate(student.classes)}
    if skip_removed:
        changes = student.provenance.get(CHANGES, [])
        places = {name: -1 for change in changes for name in change.get("removed", [])} | places
    if unknown := [name for name in dataset.names if name not in places]:
        expected = f"classes among {', '.join(student.classes)}"
        step = "rename the folders, or add the class: vl2v classes add"
        found = ", ".join(unknown)
        raise DataError("A class is not one of the student's classes.", expected=expected, found=found, next_step=step)
    return np.array([places[name] for name in dataset.names], dtype=np.int64)[dataset.labels]
