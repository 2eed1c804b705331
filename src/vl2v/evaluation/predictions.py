"""Read the saved predictions of a finished run, which `vl2v.evaluation.split.save_predictions` writes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from vl2v.arrays import FLOAT, TEXT, WHOLE, ArraysError, Form, read_arrays
from vl2v.data.splits import Indices
from vl2v.evaluation.evaluation import ROLES
from vl2v.origin import ORIGIN, check_origin
from vl2v.trust.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE

STYLED_TEMPERATURE = "styled_temperature"
FORMS = {
    ORIGIN: Form(TEXT, (), optional=True),
    "domain": Form(TEXT, ("N",)),
    "role": Form(TEXT, ("N",)),
    "path": Form(TEXT, ("N",)),
    "label": Form(WHOLE, ("N",)),
    "student": Form(FLOAT, ("N", "K")),
    "zero_shot": Form(FLOAT, ("N", "K"), optional=True),
    STYLED_TEMPERATURE: Form(FLOAT, (), optional=True),
}


@dataclass(frozen=True)
class Predictions:
    """Predictions of student and teacher on N validation and test images.

    Attributes:
        domain: [N] text.
        role: [N] text, ``in-domain``, ``test`` or ``out-of-domain``.
        path: [N] text, paths relative to the data folder.
        label: [N] int64.
        student: [N, K] float32 logits, without temperature scaling.
        teacher: [N, K] float32 zero-shot logits; None if the teacher was not queried.
        styled_temperature: that of `vl2v.evaluation.styles`; None in files of earlier versions.
    """

    domain: NDArray[np.str_]
    role: NDArray[np.str_]
    path: NDArray[np.str_]
    label: NDArray[np.int64]
    student: NDArray[np.float32]
    teacher: NDArray[np.float32] | None
    styled_temperature: float | None = None

    @property
    def domains(self) -> list[str]:
        """Names of the domains, in the order of the images."""
        return list(dict.fromkeys(self.domain.tolist()))

    @property
    def answers(self) -> NDArray[np.int64]:
        """[N] int64, the most probable class of each image according to the student."""
        answers: NDArray[np.int64] = self.student.argmax(axis=1).astype(np.int64)
        return answers

    def of(self, selection: NDArray[np.bool_] | Indices) -> Predictions:
        """Return the predictions for some of the images, given as a mask or as indices."""
        teacher = None if self.teacher is None else self.teacher[selection]
        domain, role, path = (part[selection] for part in (self.domain, self.role, self.path))
        return replace(
            self, domain=domain, role=role, path=path, label=self.label[selection], student=self.student[selection],
            teacher=teacher,
        )  # fmt: skip

    def roles(self) -> dict[str, Predictions]:
        """Return the predictions by role, without roles that have no images."""
        return {role: self.of(self.role == role) for role in ROLES if (self.role == role).any()}


def read_predictions(file: Path, anywhere: bool = False, *, origin: str = "") -> Predictions:
    """Read the file `predictions.npz` of a run.

    Args:
        anywhere: whether images may be outside the data folder, as in a table of this user.
        origin: that of the student of the run; empty accepts the predictions of any student.

    Raises:
        ValueError: if the file is damaged.
        RunError: if another student made the predictions.
        OSError: if the file cannot be read.
    """
    arrays = read_arrays(file, FORMS)
    check_origin(arrays.get(ORIGIN), origin, file)
    check_answers(arrays["role"], arrays["path"], arrays["label"], arrays["student"].shape[1], anywhere)
    teacher = arrays["zero_shot"].astype(np.float32) if "zero_shot" in arrays else None
    domain, role, path, label = (arrays[name] for name in ("domain", "role", "path", "label"))
    styled = float(arrays[STYLED_TEMPERATURE].item()) if STYLED_TEMPERATURE in arrays else None
    if styled is not None and not MIN_TEMPERATURE <= styled <= MAX_TEMPERATURE:
        raise ArraysError(f"the temperature {styled:g}, expected {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}")
    student = arrays["student"].astype(np.float32)
    return Predictions(domain, role, path, label.astype(np.int64), student, teacher, styled)


def check_answers(
    role: NDArray[np.str_], path: NDArray[np.str_], label: NDArray[np.integer], classes: int, anywhere: bool = False
) -> None:
    """Check that arrays could have been written by a run, since the file may come from a stranger.

    Args:
        role: [N], one of `ROLES`.
        path: [N], each inside the data folder, unless `anywhere`.
        label: [N], each from 0 to `classes` - 1.

    Raises:
        ArraysError: if a value is invalid.
    """
    if label.size and not (label.min() >= 0 and label.max() < classes):
        raise ArraysError(f"labels from {label.min()} to {label.max()} of {classes} classes")
    if unknown_roles := set(role.tolist()) - set(ROLES):
        raise ArraysError(f"the role {min(unknown_roles)[:40]!r}")
    for name in path.tolist():
        if "\0" in name or (not anywhere and (".." in PurePosixPath(name).parts or _is_absolute(name))):
            raise ArraysError(f"the path {name[:80]!r}, which is outside the folder of the images")


def _is_absolute(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor and os.name == "nt")
