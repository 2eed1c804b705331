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
    """Accuracies in [0, 1] of one who answers, each the plain mean over classes; None without images.

    Xian et al., "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the Ugly" (arXiv 1707.00600),
    section 5.

    Attributes:
        seen: of images of the training classes, all classes being possible answers.
        unseen: of images of the held-out classes, all classes being possible answers.
        harmonic: the harmonic mean of the two; 0 if both are.
        alone: of images of the held-out classes, those classes alone being possible answers.
    """

    seen: float | None
    unseen: float | None
    harmonic: float | None
    alone: float | None


@dataclass(frozen=True)
class UnseenRow:
    """One domain's line.

    Attributes:
        domain: its name.
        role: ``in-domain`` or ``out-of-domain``, as in the final table.
        seen_images: of the training classes: a source's validation images, or all of a held-out domain.
        unseen_images: of the held-out classes: all that the domain has, for none was trained on.
        student: the student as saved, with the held-out classes' texts added to its head.
        adjusted: the same with an offset on the logits of these classes, as `vl2v.add_classes` chooses it.
        zero_shot: the teacher; None where its vectors were not bought.
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
    """What a run says of the classes that it held out.

    Attributes:
        classes: their names.
        rows: one per domain.
        offset: of `UnseenRow.adjusted`.
    """

    classes: tuple[str, ...]
    rows: tuple[UnseenRow, ...]
    offset: float = 0.0

    def mean(self, role: str, who: str, column: str) -> float | None:
        """The mean over the domains of a role that have a value, of one of `WHO`; None if none has.

        The harmonic mean is that of the two means, so that a line agrees with itself.
        """
        if column == "harmonic":
            return harmonic(self.mean(role, who, "seen"), self.mean(role, who, "unseen"))
        found = [getattr(getattr(row, who), column, None) for row in self.rows if row.role == role]
        values = [value for value in found if value is not None]
        return float(np.mean(values)) if values else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        roles = [role for role in ROLES if any(row.role == role for row in self.rows)]
        means = {
            role.replace("-", "_"): {who: {column: self.mean(role, who, column) for column in COLUMNS} for who in WHO}
            for role in roles
        }
        domains = [asdict(row) for row in self.rows]
        return {"classes": list(self.classes), "offset": self.offset, "domains": domains, "means": means}

    def table(self) -> Table:
        """For a terminal, in percent."""
        table = Table(title=f"held-out classes ({', '.join(self.classes)}), accuracy per class, percent")
        left = ("domain", "", "model")
        for name in (*left, "seen", "unseen", "harmonic mean", "unseen among themselves"):
            table.add_column(name, justify="left" if name in left else "right")
        for role in ROLES:
            rows = [row for row in self.rows if row.role == role]
            for row in rows:
                for who, name in WHO.items():
                    if (found := getattr(row, who)) is not None:
                        table.add_row(row.domain, role, name, *(percent(getattr(found, c)) for c in COLUMNS))
            if rows:
                for who, name in WHO.items():
                    means = [percent(self.mean(role, who, column)) for column in COLUMNS]
                    table.add_row("mean", role, name, *means, style="bold", end_section=who == "adjusted")
        return table


def harmonic(seen: float | None, unseen: float | None) -> float | None:
    """2 * s * u / (s + u) of two accuracies in [0, 1], 0 if both are 0; None if one is missing."""
    if seen is None or unseen is None:
        return None
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


def accuracies(logits: Logits, labels: NDArray[np.int64], seen: int) -> Unseen:
    """What [N, K] logits say of images of seen and unseen classes; see `Unseen`.

    Args:
        logits: of all classes, the seen ones first.
        labels: [N], positions among all classes.
        seen: how many classes were trained on, from 1 to K - 1.
    """
    answers, new = logits.argmax(axis=1), labels >= seen
    of_seen = _per_class(answers[~new], labels[~new])
    of_unseen = _per_class(answers[new], labels[new])
    alone = _per_class(logits[new, seen:].argmax(axis=1) + seen, labels[new])
    return Unseen(of_seen, of_unseen, harmonic(of_seen, of_unseen), alone)


def evaluate_unseen(
    plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain], student: Student
) -> UnseenClasses | None:
    """Measure a saved student on the classes that its run held out; None if it held out none.

    Args:
        plan: the run's.
        bought: embeddings of its images, of the held-out classes too.
        domains: of the run's split.
        student: it knows the training classes, and is not changed.
    """
    unseen, further = plan.unseen, bought.unseen_head
    if unseen is None or further is None:
        return None
    assert student.head is not None
    device, pixels, slots = student.device, plan.pixels.map(), plan.pixels.slots(unseen.digests)
    head, teacher_head = torch.cat([student.head, further.to(device)]), torch.cat([bought.head, further])
    seen, rows = len(student.classes), []

    def predicted(slots: Slots) -> Logits:
        passed = pass_through(student, student.preprocess, pixels, slots, device)
        logits: Logits = torch.cat([cosine_logits(p, head, student.logit_scale).cpu() for p in passed]).numpy()
        return logits

    new = [unseen.rows_of(part.domain) for part in domains]
    logits = [predicted(np.concatenate([part.slots, slots[rows]])) for part, rows in zip(domains, new, strict=True)]
    known = [found[: len(part)] for part, found in zip(domains, logits, strict=True) if part.role == IN_DOMAIN]
    validation = np.concatenate(known)
    offset = new_class_offset(validation[:, :seen], validation[:, seen:])
    shift = np.float32(offset) * (np.arange(len(head)) >= seen)
    for part, further_rows, found in zip(domains, new, logits, strict=True):
        labels = np.concatenate([plan.dataset.labels[part.rows], unseen.labels[further_rows] + seen])
        of_teacher = None
        if part.embeddings is not None and bought.unseen is not None:
            vectors = np.concatenate([part.embeddings, bought.unseen[further_rows]])
            of_teacher = accuracies(bought.zero_shot(vectors, teacher_head), labels, seen)
        of_student, adjusted = (accuracies(each, labels, seen) for each in (found, found + shift))
        rows.append(UnseenRow(part.domain, part.role, len(part), len(further_rows), of_student, adjusted, of_teacher))
    return UnseenClasses(unseen.names, tuple(rows), offset)


def _per_class(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float | None:
    """The mean over the classes that have images of the share that is right."""
    shares = [float((answers[labels == label] == label).mean()) for label in np.unique(labels)]
    return float(np.mean(shares)) if shares else None
