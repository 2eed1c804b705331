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
ROLES = (IN_DOMAIN, TEST, OUT_OF_DOMAIN)  # roles of the images that a run is evaluated on

Logits = NDArray[np.float32]  # [N, K]


@dataclass(frozen=True)
class ClassRecall:
    """Recall on the images of one class in one domain.

    Attributes:
        student: share in [0, 1] of them for which the student predicts the class.
        zero_shot: the same for the teacher; None if its embeddings were not bought.
    """

    images: int
    student: float
    zero_shot: float | None = None


@dataclass(frozen=True)
class DomainScore:
    """Results of one domain.

    Attributes:
        role: ``in-domain`` (validation images of a source domain), ``test`` (its test images, if the data state them),
            ``out-of-domain`` (all images of a held-out domain), or ``all images`` (the split is unknown, so training
            images may be among them).
        student: top-1 accuracy of the saved student, in [0, 1]. Without labels, this and the following attributes state
            the agreement with the teacher's predictions.
        zero_shot: accuracy of the teacher; None if its embeddings were not bought.
        student_ece: expected calibration error of the student, in [0, 1]; None in files of earlier versions.
        zero_shot_ece: expected calibration error of the teacher.
        student_ece_calibrated: expected calibration error of the student with the temperature of its trust data; None
            without them.
        student_aurc: area under the risk-coverage curve by calibrated confidence, in [0, 1]; lower is better.
        student_aurc_energy: area under the risk-coverage curve by energy.
        student_macro: mean recall of the student over the classes that have images, in [0, 1]; None in files of earlier
            versions.
        zero_shot_macro: mean recall of the teacher.
        classes: recall by class name, of the classes that have images.
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

    def with_teacher(self, logits: Logits, labels: NDArray[np.int64]) -> DomainScore:
        """Return a copy with the results of the teacher, from its logits [N, K] and the labels [N]."""
        recall = recalls(logits, labels)
        teacher = iter(recall[~np.isnan(recall)].tolist())  # in the order of `self.classes`
        classes = {name: replace(one, zero_shot=next(teacher)) for name, one in self.classes.items()}
        right, error, macro = top1(logits, labels), calibration_error(logits, labels), float(np.nanmean(recall))
        return replace(self, zero_shot=right, zero_shot_ece=error, zero_shot_macro=macro, classes=classes)


@dataclass(frozen=True)
class Evaluation:
    """Results of all domains.

    Attributes:
        rows: one row per domain.
        alternatives: results of alternative weights of the run, by name.
        reference: what predictions are compared with: labels, or the teacher's predictions.
        metric: metric of the printed table.
    """

    rows: tuple[DomainScore, ...]
    alternatives: Mapping[str, Evaluation] = field(default_factory=dict)
    reference: Reference = LABELS
    metric: Metric = "accuracy"

    @property
    def beside(self) -> Mapping[str, Evaluation]:
        """The former name of `alternatives`; the next release removes it."""
        warnings.warn("Evaluation.beside is now Evaluation.alternatives", DeprecationWarning, stacklevel=2)
        return self.alternatives

    def mean(self, role: str, column: str) -> float | None:
        """Return the mean of a column, such as ``student``, over the domains of a role; None if a value is missing."""
        values = [getattr(row, column) for row in self.rows if row.role == role]
        return float(np.mean(values)) if values and None not in values else None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, accuracies in [0, 1]. Without labels, ``measure`` names the measure."""
        roles = {role: role.replace("-", "_").replace(" ", "_") for role in (*ROLES, UNSPLIT)}
        present = [role for role in roles if any(row.role == role for row in self.rows)]
        columns = ("zero_shot", "student", "zero_shot_macro", "student_macro")
        means = {roles[r]: {c: self.mean(r, c) for c in columns} for r in present}
        about = (
            {} if self.reference is LABELS else {"reference": self.reference.name, "measure": self.reference.measure}
        )
        about |= {} if self.metric == "accuracy" else {"metric": self.metric}
        content: dict[str, Any] = about | {"domains": [asdict(row) for row in self.rows], "means": means}
        alternatives = {name: evaluation.to_dict() for name, evaluation in self.alternatives.items()}
        return content | ({"beside": alternatives} if alternatives else {})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Evaluation:
        """Convert the values that `to_dict` returned back to an evaluation."""
        alternatives = {name: cls.from_dict(part) for name, part in content.get("beside", {}).items()}
        reference = REFERENCES[content.get("reference", LABELS.name)]
        rows = []
        for row in content["domains"]:
            classes = {name: ClassRecall(**one) for name, one in row.get("classes", {}).items()}
            rows.append(DomainScore(**{**row, "classes": classes}))
        return cls(tuple(rows), alternatives, reference, content.get("metric", "accuracy"))

    def table(self) -> Table:
        """Return a table for a terminal, in percent. If the teacher is the reference, it has no column."""
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
        """Return the table as HTML, for a notebook."""
        return html_of(self.table())


def percent(value: float | None) -> str:
    """Format a share in [0, 1] as percent with one digit; None as a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def split_domains(split: Split) -> Iterator[tuple[str, str, DatasetRows]]:
    """Yield role, domain and dataset rows of the evaluated images, in the order of `Split.evaluation_rows`."""
    for role, parts in zip(ROLES, split.evaluation_parts, strict=True):
        for domain, rows in parts.items():
            yield role, domain, rows


def student_answers(
    student: Student, pixels: NDArray[np.uint8], slots: Slots
) -> tuple[Logits, NDArray[np.float32] | None]:
    """Predict the images of N slots with a student.

    Returns:
        (logits [N, K] float32, embeddings [N, D] float32 of length one). The embeddings are None without a text head.
    """
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
    """Return the top-1 accuracy in [0, 1] of logits [N, K] for labels [N]; N is at least 1."""
    return float((logits.argmax(axis=1) == labels).mean())


def recalls(logits: Logits, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the recall of each class, [K] in [0, 1], of logits [N, K] for labels [N]; NaN without images."""
    classes = logits.shape[1]
    right = np.bincount(labels[logits.argmax(axis=1) == labels], minlength=classes)
    images = np.bincount(labels, minlength=classes)
    shares: NDArray[np.float64] = np.divide(right, images, out=np.full(classes, np.nan), where=images > 0)
    return shares


def calibration_error(logits: Logits, labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Return the expected calibration error in [0, 1] over 15 bins of equal width (Guo et al., ICML 2017).

    Args:
        logits: [N, K], N at least 1.
        labels: [N].
        temperature: divisor of the logits.
    """
    return reliability(probabilities(logits, temperature), labels).error


def domain_score(
    domain: str,
    role: str,
    logits: Logits,
    labels: NDArray[np.int64],
    temperature: float | None,
    classes: Sequence[str] = (),
) -> DomainScore:
    """Compute the results of a student on one domain.

    Args:
        role: one of `ROLES`, or `UNSPLIT`.
        logits: [N, K], N at least 1.
        labels: [N].
        temperature: temperature of the student, if it has one.
        classes: K names. Without them, the recall by class is omitted.
    """
    recall, images = recalls(logits, labels), np.bincount(labels, minlength=logits.shape[1])
    by_class = zip(classes, images.tolist(), recall.tolist(), strict=True) if classes else ()
    right, t = logits.argmax(axis=1) == labels, temperature or 1.0
    return DomainScore(
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
