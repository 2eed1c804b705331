"""The answers that a finished run kept, read back from `predictions.npz`; `vl2v.job.judging.keep_answers` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.job.evaluation import IN_DOMAIN, OUT_OF_DOMAIN

ROLES = (IN_DOMAIN, OUT_OF_DOMAIN)


@dataclass(frozen=True)
class Predictions:
    """Every answer on validation and test images.

    Attributes:
        domain: [N] text.
        role: [N] text, ``in-domain`` or ``out-of-domain``.
        path: [N] text, below the data's root.
        label: [N] int64.
        student: [N, K] float32 logits, not divided by the temperature.
        teacher: [N, K] float32 zero-shot logits; None where it was not asked.
    """

    domain: NDArray[np.str_]
    role: NDArray[np.str_]
    path: NDArray[np.str_]
    label: NDArray[np.int64]
    student: NDArray[np.float32]
    teacher: NDArray[np.float32] | None

    @property
    def domains(self) -> list[str]:
        """The domains in their order."""
        return list(dict.fromkeys(self.domain.tolist()))

    @property
    def answers(self) -> NDArray[np.int64]:
        """[N] the student's most probable class."""
        found: NDArray[np.int64] = self.student.argmax(axis=1).astype(np.int64)
        return found

    def of(self, chosen: NDArray[np.bool_]) -> Predictions:
        """Those of some images."""
        teacher = None if self.teacher is None else self.teacher[chosen]
        domain, role, path = (part[chosen] for part in (self.domain, self.role, self.path))
        return Predictions(domain, role, path, self.label[chosen], self.student[chosen], teacher)

    def roles(self) -> dict[str, Predictions]:
        """By role, those that have images."""
        return {role: self.of(self.role == role) for role in ROLES if (self.role == role).any()}


def read_predictions(file: Path) -> Predictions:
    """Read a run's `predictions.npz`.

    Raises:
        OSError, ValueError, KeyError, BadZipFile: if it is missing or broken.
    """
    with np.load(file, allow_pickle=False) as found:
        domain, role, path, label = (found[name] for name in ("domain", "role", "path", "label"))
        teacher = found["zero_shot"].astype(np.float32) if "zero_shot" in found.files else None
        return Predictions(domain, role, path, label, found["student"].astype(np.float32), teacher)
