"""The table at the end: zero-shot teacher and student per domain, in-domain and out-of-domain apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from vl2v.job.features import CHUNK, pass_through, scores
from vl2v.student.model import Student, cosine_logits
from vl2v.task.splits import Indices

IN_DOMAIN, OUT_OF_DOMAIN, UNSPLIT = "in-domain", "out-of-domain", "all images"


@dataclass(frozen=True)
class Row:
    """One domain's line.

    Attributes:
        domain: its name.
        role: ``in-domain`` (a source's validation images), ``out-of-domain`` (a held-out domain, all its images), or
            ``all images`` (no split is known, training images may be among them).
        images: how many.
        student: top-1 accuracy in [0, 1] of the student as saved.
        zero_shot: of the teacher, None where its vectors were not bought.
    """

    domain: str
    role: str
    images: int
    student: float
    zero_shot: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy per domain, and the plain means over in-domain and out-of-domain rows."""

    rows: tuple[Row, ...]

    def mean(self, role: str, column: str) -> float | None:
        """The mean of ``student`` or ``zero_shot`` over the domains of a role; None if there are none."""
        values = [getattr(row, column) for row in self.rows if row.role == role]
        return float(np.mean(values)) if values and None not in values else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, accuracies in [0, 1]."""
        roles = {role: role.replace("-", "_").replace(" ", "_") for role in (IN_DOMAIN, OUT_OF_DOMAIN, UNSPLIT)}
        present = [role for role in roles if any(row.role == role for row in self.rows)]
        means = {roles[r]: {c: self.mean(r, c) for c in ("zero_shot", "student")} for r in present}
        return {"domains": [asdict(row) for row in self.rows], "means": means}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Read what `to_dict` gave."""
        return cls(tuple(Row(**row) for row in content["domains"]))

    def table(self) -> Table:
        """For a terminal, accuracies in percent."""
        table = Table(title="top-1 accuracy, percent")
        for name in ("domain", "", "images", "zero-shot teacher", "student"):
            table.add_column(name, justify="left" if name in ("domain", "") else "right")
        for role in (IN_DOMAIN, OUT_OF_DOMAIN, UNSPLIT):
            rows = [row for row in self.rows if row.role == role]
            for row in rows:
                cells = (_percent(row.zero_shot), _percent(row.student))
                table.add_row(row.domain, row.role, f"{row.images:,}", *cells)
            if rows:
                means = [_percent(self.mean(role, column)) for column in ("zero_shot", "student")]
                total = f"{sum(row.images for row in rows):,}"
                table.add_row("mean", role, total, *means, style="bold", end_section=True)
        return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def student_accuracy(
    student: Student, pixels: NDArray[np.uint8], labelled: Mapping[str, tuple[Indices, NDArray[np.int64]]]
) -> dict[str, float]:
    """Top-1 accuracy of a student by domain, from (slots, labels) of each; labels are positions in its classes."""
    device = student.device
    passed = scores(
        lambda slots: (student.logits(p) for p in pass_through(student, student.preprocess, pixels, slots, device)),
        labelled,
    )
    return {domain: found.accuracy for domain, found in passed.items()}


def zero_shot_accuracy(vectors: NDArray[np.float32], head: Tensor, labels: NDArray[np.int64]) -> float:
    """Top-1 accuracy of [N, D] teacher vectors against the [K, D] text head."""
    correct = 0
    for start in range(0, len(labels), CHUNK * 64):
        part = torch.from_numpy(np.asarray(vectors[start : start + CHUNK * 64]))
        answers = cosine_logits(part, head, 1.0).argmax(dim=1).numpy()
        correct += int((answers == labels[start : start + CHUNK * 64]).sum())
    return correct / len(labels)
