"""Accuracy of student and zero-shot teacher per domain, in-domain and out-of-domain."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from vl2v.data.splits import DatasetRows, Slots
from vl2v.evaluation.features import pass_through
from vl2v.evaluation.reference import LABELS, REFERENCES, Reference
from vl2v.notebook import html_of
from vl2v.planning.split import Split
from vl2v.schema import Metric
from vl2v.student.model import Student
from vl2v.trust.calibration import reliability
from vl2v.trust.rejection import risk_coverage
from vl2v_runtime.trust import CONFIDENCE, ENERGY, probabilities, scores

IN_DOMAIN, TEST, OUT_OF_DOMAIN, UNSPLIT = "in-domain", "test", "out-of-domain", "all images"
ROLES = (IN_DOMAIN, TEST, OUT_OF_DOMAIN)  # of the images that a run is evaluated on

Logits = NDArray[np.float32]  # [N, K]


@dataclass(frozen=True)
class ClassRecall:
    """Recall on the images of one class in one domain.

    Attributes:
        images: number of images, at least 1.
        student: share in [0, 1] of them for which the student predicts the class.
        zero_shot: the same for the teacher; None if its embeddings were not bought.
    """

    images: int
    student: float
    zero_shot: float | None = None


@dataclass(frozen=True)
class Row:
    """Results of one domain.

    Attributes:
        domain: its name.
        role: ``in-domain`` (a source's validation images), ``test`` (its test images, where the data state them),
            ``out-of-domain`` (a held-out domain, all its images), or ``all images`` (no split is known, training images
            may be among them).
        images: number of images.
        student: top-1 accuracy in [0, 1] of the saved student. For images without labels, this and the following
            attributes state the agreement with the teacher's predictions.
        zero_shot: accuracy of the teacher; None if its embeddings were not bought.
        student_ece: expected calibration error of the student, in [0, 1]; None in files of earlier versions.
        zero_shot_ece: expected calibration error of the teacher.
        student_ece_calibrated: calibration error of the student with its temperature, which was fitted on all
            in-domain rows together; None without a temperature.
        student_aurc: area under the risk-coverage curve by calibrated confidence, in [0, 1]; lower is better.
        student_aurc_energy: the same by energy.
        student_macro: mean in [0, 1] of the student's recall over the classes that have images; None in files of
            earlier versions.
        zero_shot_macro: the same for the teacher.
        classes: recall by class name, without classes that have no images.
    """

    domain: str
    role: str
    images: int
    student: float
    zero_shot: float | None = None
    student_ece: float | None = None
    zero_shot_ece: float | None = None
    student_ece_calibrated: float | None = None
    student_aurc: float | None = None
    student_aurc_energy: float | None = None
    student_macro: float | None = None
    zero_shot_macro: float | None = None
    classes: Mapping[str, ClassRecall] = field(default_factory=dict)

    def with_teacher(self, logits: Logits, labels: NDArray[np.int64]) -> Row:
        """The row with the teacher's figures, from its [N, K] logits and the [N] labels."""
        recall = recalls(logits, labels)
        teacher = iter(recall[~np.isnan(recall)].tolist())  # in the order of the classes, as `row_of` has them
        classes = {name: replace(one, zero_shot=next(teacher)) for name, one in self.classes.items()}
        right, error, macro = top1(logits, labels), calibration_error(logits, labels), float(np.nanmean(recall))
        return replace(self, zero_shot=right, zero_shot_ece=error, zero_shot_macro=macro, classes=classes)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy per domain, and the plain means over in-domain and out-of-domain rows.

    Attributes:
        rows: one per domain.
        alternatives: the same for alternative weights of the run, by name.
        reference: what predictions are compared with: labels, or the teacher's predictions.
        metric: metric in the printed table.
    """

    rows: tuple[Row, ...]
    alternatives: Mapping[str, Evaluation] = field(default_factory=dict)
    reference: Reference = LABELS
    metric: Metric = "accuracy"

    @property
    def beside(self) -> Mapping[str, Evaluation]:
        """The former name of `alternatives`; the next release removes it."""
        warnings.warn("Evaluation.beside is now Evaluation.alternatives", DeprecationWarning, stacklevel=2)
        return self.alternatives

    def mean(self, role: str, column: str) -> float | None:
        """The mean of a column, such as ``student``, over the domains of a role; None if one lacks it."""
        values = [getattr(row, column) for row in self.rows if row.role == role]
        return float(np.mean(values)) if values and None not in values else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, accuracies in [0, 1]; without labels ``measure`` says what the figures are."""
        roles = {role: role.replace("-", "_").replace(" ", "_") for role in (*ROLES, UNSPLIT)}
        present = [role for role in roles if any(row.role == role for row in self.rows)]
        columns = ("zero_shot", "student", "zero_shot_macro", "student_macro")
        means = {roles[r]: {c: self.mean(r, c) for c in columns} for r in present}
        said = {} if self.reference is LABELS else {"reference": self.reference.name, "measure": self.reference.measure}
        said |= {} if self.metric == "accuracy" else {"metric": self.metric}
        content: dict[str, Any] = said | {"domains": [asdict(row) for row in self.rows], "means": means}
        alternatives = {name: evaluation.to_dict() for name, evaluation in self.alternatives.items()}
        return content | ({"beside": alternatives} if alternatives else {})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Read what `to_dict` gave."""
        alternatives = {name: cls.from_dict(part) for name, part in content.get("beside", {}).items()}
        reference = REFERENCES[content.get("reference", LABELS.name)]
        rows = []
        for row in content["domains"]:
            classes = {name: ClassRecall(**one) for name, one in row.get("classes", {}).items()}
            rows.append(Row(**{**row, "classes": classes}))
        return cls(tuple(rows), alternatives, reference, content.get("metric", "accuracy"))

    def table(self) -> Table:
        """For a terminal, in percent; the teacher has no column where it is the reference."""
        macro = self.metric == "macro"
        suffix = "_macro" if macro else ""
        columns = {f"zero_shot{suffix}": "zero-shot teacher", f"student{suffix}": "student"}
        if self.reference is not LABELS:
            del columns[f"zero_shot{suffix}"]
        table = Table(title=f"{self.reference.measure_of(macro)}, percent")
        for name in ("domain", "", "images", *columns.values()):
            table.add_column(name, justify="left" if name in ("domain", "") else "right")
        for role in (*ROLES, UNSPLIT):
            rows = [row for row in self.rows if row.role == role]
            for row in rows:
                cells = (percent(getattr(row, column)) for column in columns)
                table.add_row(row.domain, row.role, f"{row.images:,}", *cells)
            if rows:
                means = [percent(self.mean(role, column)) for column in columns]
                total = f"{sum(row.images for row in rows):,}"
                table.add_row("mean", role, total, *means, style="bold", end_section=True)
        return table

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return html_of(self.table())


def percent(value: float | None) -> str:
    """A share as a table has it: percent with one digit, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def split_domains(split: Split) -> Iterator[tuple[str, str, DatasetRows]]:
    """Role, domain and rows of the images that a run's student is evaluated on, as in `Split.evaluation_rows`."""
    for role, parts in zip(ROLES, split.evaluation_parts, strict=True):
        for domain, rows in parts.items():
            yield role, domain, rows


def student_answers(
    student: Student, pixels: NDArray[np.uint8], slots: Slots
) -> tuple[Logits, NDArray[np.float32] | None]:
    """A student's logits for the images of [N] slots, [N, K] float32, and its embeddings, [N, D] if it has a head."""
    logits: list[Tensor] = []
    embeddings: list[Tensor] = []
    for projected in pass_through(student, student.preprocess, pixels, slots, student.device):
        logits.append(student.logits(projected).cpu())
        if student.head is not None:
            embeddings.append(student.embeddings(projected).cpu())
    if student.head is None:
        return _joined(logits, len(student.classes)), None
    return _joined(logits, len(student.classes)), _joined(embeddings, student.dimension)


def _joined(rows: list[Tensor], width: int) -> NDArray[np.float32]:
    return torch.cat(rows).numpy() if rows else np.zeros((0, width), np.float32)


def top1(logits: Logits, labels: NDArray[np.int64]) -> float:
    """Top-1 accuracy in [0, 1] of [N, K] logits against [N] labels, N at least 1."""
    return float((logits.argmax(axis=1) == labels).mean())


def recalls(logits: Logits, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The recall of each class in [0, 1], [K], of [N, K] logits against [N] labels; NaN without images."""
    classes = logits.shape[1]
    right = np.bincount(labels[logits.argmax(axis=1) == labels], minlength=classes)
    images = np.bincount(labels, minlength=classes)
    shares: NDArray[np.float64] = np.divide(right, images, out=np.full(classes, np.nan), where=images > 0)
    return shares


def calibration_error(logits: Logits, labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Expected calibration error in [0, 1] over 15 bins of equal width (Guo et al., ICML 2017).

    Args:
        logits: [N, K], N at least 1.
        labels: [N].
        temperature: by which the logits are divided.
    """
    return reliability(probabilities(logits, temperature), labels).error


def row_of(
    domain: str,
    role: str,
    logits: Logits,
    labels: NDArray[np.int64],
    temperature: float | None,
    classes: Sequence[str] = (),
) -> Row:
    """A student's line of the table.

    Args:
        domain: its name.
        role: one of `ROLES`, or `UNSPLIT`.
        logits: [N, K], N at least 1.
        labels: [N].
        temperature: None for a student without one.
        classes: K names; empty leaves the recall by class out.
    """
    recall, images = recalls(logits, labels), np.bincount(labels, minlength=logits.shape[1])
    by_class = zip(classes, images.tolist(), recall.tolist(), strict=True) if classes else ()
    right, t = logits.argmax(axis=1) == labels, temperature or 1.0
    return Row(
        domain,
        role,
        len(labels),
        student=top1(logits, labels),
        student_ece=calibration_error(logits, labels),
        student_ece_calibrated=None if temperature is None else calibration_error(logits, labels, temperature),
        student_aurc=risk_coverage(scores(logits, CONFIDENCE, t), right).area,
        student_aurc_energy=risk_coverage(scores(logits, ENERGY, t), right).area,
        student_macro=float(np.nanmean(recall)),
        classes={name: ClassRecall(count, share) for name, count, share in by_class if count},
    )
