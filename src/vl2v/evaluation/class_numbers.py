"""The classes of a dataset as a student numbers them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import ImageDataset
from vl2v.errors import DataError
from vl2v.student.model import Student


def class_numbers(student: Student, dataset: ImageDataset, absent: Collection[str] = ()) -> NDArray[np.int64]:
    """The student's class of every image of a dataset, [N] int64.

    Args:
        student: with its classes.
        dataset: the images.
        absent: names of classes that the student may lack; images of a class that it lacks get -1.

    Raises:
        DataError: if the dataset has another class that the student does not know.
    """
    numbers = dict.fromkeys(absent, -1) | {name: i for i, name in enumerate(student.classes)}
    if unknown := [name for name in dataset.names if name not in numbers]:
        expected = f"classes among {', '.join(student.classes)}"
        step = "rename the folders, or add the class: vl2v classes add"
        found = ", ".join(unknown)
        raise DataError("A class is not one of the student's classes.", expected=expected, found=found, next_step=step)
    return np.array([numbers[name] for name in dataset.names], dtype=np.int64)[dataset.labels]
