"""Map the labels of a dataset to the class indices of a student."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from vl2v.data.images import ImageDataset
from vl2v.errors import DataError
from vl2v.student.model import Student


def class_numbers(student: Student, dataset: ImageDataset, absent: Collection[str] = ()) -> NDArray[np.int64]:
    """Return the student's class index of each of the N images of a dataset, [N] int64.

    Args:
        absent: names of classes that the student may lack. The index of their images is -1.

    Raises:
        DataError: if the student does not know another class of the dataset.
    """
    numbers = dict.fromkeys(absent, -1) | {name: i for i, name in enumerate(student.classes)}
    if unknown := [name for name in dataset.names if name not in numbers]:
        expected = f"classes among {', '.join(student.classes)}"
        step = "rename the folders, or add the class: vl2v classes add"
        found = ", ".join(unknown)
        raise DataError("A class is not one of the student's classes.", expected=expected, found=found, next_step=step)
    return np.array([numbers[name] for name in dataset.names], dtype=np.int64)[dataset.labels]
