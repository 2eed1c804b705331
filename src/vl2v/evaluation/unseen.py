"""Generalised zero-shot accuracy of student and teacher on held-out classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from vl2v.data.splits import Slots
from vl2v.evaluation.evaluation import IN_DOMAIN, ROLES, Logits, percent
from vl2v.evaluation.features import pass_through
from vl2v.evaluation.offset import new_class_offset
from vl2v.evaluation.split import EvaluationDomain
from vl2v.planning.plan import RunPlan
from vl2v.purchase import BoughtEmbeddings
from vl2v.student.model import Student, cosine_logits

COLUMNS = ("seen", "unseen", "harmonic", "alone")
WHO = {"zero_shot": "teacher", "student": "student", "adjusted": "student with offset"}


@dataclass(frozen=True)
class Unseen:
    """Accuracy of one model on seen and unseen classes, in [0, 1]: mean over classes, or None without images.

    The measures follow section 5 of Xian et al., "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad
    and the Ugly" (arXiv 1707.00600).

    Attributes:
        seen: accuracy on images of the training classes; all classes can be predicted.
        unseen: accuracy on images of the held-out classes; all classes can be predicted.
        harmonic: harmonic mean of `seen` and `unseen`; 0 if both are 0.
        alone: accuracy on images of the held-out classes; only these classes can be predicted.
    """

    seen: float | None
    unseen: float | None
    harmonic: float | None
    alone: float | None


@dataclass(frozen=True)
class UnseenRow:
    """Results on the held-out classes in one domain.

    Attributes:
        role: one of `vl2v.evaluation.evaluation.ROLES`.
        seen_images: number of images of the training classes: validation images of a source domain, or all images of a
            held-out domain.
        unseen_images: number of images of the held-out classes in the domain. None of them was used for training.
        student: the saved student, with the text embeddings of the held-out classes added to its head.
        adjusted: the same with an offset on the logits of these classes, as `vl2v.add_classes` chooses it.
        zero_shot: the teacher; None if its embeddings were not bought.
    """

    domain: str
    role: str
    seen_images: int
    unseen_images: int
    student: Unseen
    adjusted: Unseen
    zero_shot: Unseen | None


@dataclass(frozen=True)
class UnseenClasses:
    """Results of a run on its held-out classes.

    Attributes:
        offset: offset of `UnseenRow.adjusted`.
    """

    classes: tuple[str, ...]
    rows: tuple[UnseenRow, ...]
    offset: float = 0.0

    def mean(self, role: str, who: str, column: str) -> float | None:
        """Return the mean over the domains of a role, for one of `WHO`; None without values.

        The harmonic mean is computed from the means of the other two columns.
        """
        if column == "harmonic":
            return harmonic(self.mean(role, who, "seen"), self.mean(role, who, "unseen"))
        shares = [getattr(getattr(row, who), column, None) for row in self.rows if row.role == role]
        values = [value for value in shares if value is not None]
        return float(np.mean(values)) if values else None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        roles = [role for role in ROLES if any(row.role == role for row in self.rows)]
        means = {
            role.replace("-", "_"): {who: {column: self.mean(role, who, column) for column in COLUMNS} for who in WHO}
            for role in roles
        }
        domains = [asdict(row) for row in self.rows]
        return {"classes": list(self.classes), "offset": self.offset, "domains": domains, "means": means}

    def table(self) -> Table:
        """Return a table for a terminal, in percent."""
        table = Table(title=f"held-out classes ({', '.join(self.classes)}), accuracy per class, percent")
        left_aligned = ("domain", "", "model")
        for name in (*left_aligned, "seen", "unseen", "harmonic mean", "unseen among themselves"):
            table.add_column(name, justify="left" if name in left_aligned else "right")
        for role in ROLES:
            rows = [row for row in self.rows if row.role == role]
            for row in rows:
                for who, name in WHO.items():
                    if (result := getattr(row, who)) is not None:
                        table.add_row(row.domain, role, name, *(percent(getattr(result, c)) for c in COLUMNS))
            if rows:
                for who, name in WHO.items():
                    means = [percent(self.mean(role, who, column)) for column in COLUMNS]
                    table.add_row("mean", role, name, *means, style="bold", end_section=who == "adjusted")
        return table


def harmonic(seen: float | None, unseen: float | None) -> float | None:
    """Return the harmonic mean of two accuracies in [0, 1]; 0 if both are 0, None if one is missing."""
    if seen is None or unseen is None:
        return None
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


def accuracies(logits: Logits, labels: NDArray[np.int64], seen_classes: int) -> Unseen:
    """Compute the accuracy of logits on images of seen and unseen classes.

    Args:
        logits: [N, K] logits of all classes, the seen ones first.
        labels: [N] class indices.
        seen_classes: number of seen classes, from 1 to K - 1.
    """
    answers, new = logits.argmax(axis=1), labels >= seen_classes
    of_seen = _per_class(answers[~new], labels[~new])
    of_unseen = _per_class(answers[new], labels[new])
    alone = _per_class(logits[new, seen_classes:].argmax(axis=1) + seen_classes, labels[new])
    return Unseen(of_seen, of_unseen, harmonic(of_seen, of_unseen), alone)


def evaluate_unseen(
    plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain], student: Student
) -> UnseenClasses | None:
    """Evaluate a student on the classes that its run held out; return None if there are none.

    Args:
        bought: embeddings of its images, including those of held-out classes.
        student: the saved student, which knows the training classes. It is not changed.
    """
    unseen, further = plan.unseen, bought.unseen_head
    if unseen is None or further is None:
        return None
    assert student.head is not None
    device, pixels, slots = student.device, plan.pixels.map(), plan.pixels.slots(unseen.digests)
    head, teacher_head = torch.cat([student.head, further.to(device)]), torch.cat([bought.head, further])
    seen_classes, rows = len(student.classes), []

    def predicted(slots: Slots) -> Logits:
        passed = pass_through(student, student.preprocess, pixels, slots, device)
        logits: Logits = torch.cat([cosine_logits(p, head, student.logit_scale).cpu() for p in passed]).numpy()
        return logits

    new = [unseen.rows_of(part.domain) for part in domains]
    logits = [predicted(np.concatenate([part.slots, slots[rows]])) for part, rows in zip(domains, new, strict=True)]
    validation_parts = [
        part_logits[: len(part)] for part, part_logits in zip(domains, logits, strict=True) if part.role == IN_DOMAIN
    ]
    validation = np.concatenate(validation_parts)
    offset = new_class_offset(validation[:, :seen_classes], validation[:, seen_classes:])
    shift = np.float32(offset) * (np.arange(len(head)) >= seen_classes)
    for part, further_rows, part_logits in zip(domains, new, logits, strict=True):
        labels = np.concatenate([plan.dataset.labels[part.rows], unseen.labels[further_rows] + seen_classes])
        of_teacher = None
        if part.embeddings is not None and bought.unseen is not None:
            embeddings = np.concatenate([part.embeddings, bought.unseen[further_rows]])
            of_teacher = accuracies(bought.zero_shot(embeddings, teacher_head), labels, seen_classes)
        of_student, adjusted = (accuracies(each, labels, seen_classes) for each in (part_logits, part_logits + shift))
        rows.append(UnseenRow(part.domain, part.role, len(part), len(further_rows), of_student, adjusted, of_teacher))
    return UnseenClasses(unseen.names, tuple(rows), offset)


def _per_class(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float | None:
    """Return the mean accuracy over the classes that have images."""
    shares = [float((answers[labels == label] == label).mean()) for label in np.unique(labels)]
    return float(np.mean(shares)) if shares else None
