"""Evaluate a run's student on its own split, and save all predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.evaluation.evaluation import (
    IN_DOMAIN,
    Evaluation,
    Logits,
    calibration_error,
    judged,
    row_of,
    student_answers,
    top1,
)
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.planning.session import Session
from vl2v.student.model import Student
from vl2v.trust.fit import fit
from vl2v.writing import replacing
from vl2v_runtime.trust import Trust


@dataclass(frozen=True)
class Part:
    """What a student says of one domain's images.

    Attributes:
        domain: its name.
        role: ``in-domain``, a source's validation images, or ``out-of-domain``, all of a held-out domain.
        paths: [N] of the images, below the data's root.
        labels: [N]; the teacher's answers where the images have no labels.
        logits: [N, K], the student's, before any temperature.
        embeddings: [N, D], rows of length one; None without a head.
        zero_shot: [N, K], the teacher's; None where it was not asked.
        reference: where the labels are from.
    """

    domain: str
    role: str
    paths: Sequence[str]
    labels: NDArray[np.int64]
    logits: Logits
    embeddings: NDArray[np.float32] | None
    zero_shot: Logits | None = None
    reference: Reference = LABELS


def judge(session: Session, student: Student) -> tuple[Part, ...]:
    """Ask a student about the run's validation images and held-out domains, whatever weights it has now."""
    parts = []
    for role, domain, places in judged(session.split):
        slots = session.cache.slots(session.task.digests[places])
        logits, embeddings = student_answers(student, session.cache.map(), slots)
        labels, teacher, reference = session.task.labels[places], None, LABELS
        if session.config.teacher.zero_shot or not session.labelled:
            teacher = session.zero_shot(places)
        if teacher is not None and not session.labelled:
            labels, reference = teacher.argmax(axis=1).astype(np.int64), TEACHER
        paths = [session.task.paths[i] for i in places]
        parts.append(Part(domain, role, paths, labels, logits, embeddings, teacher, reference))
    return tuple(parts)


def trust_of(parts: Sequence[Part], drift: bool = True) -> Trust | None:
    """Fit trust on the in-domain parts; a held-out domain has no say.

    Args:
        parts: of all domains.
        drift: whether a reference for drift is wanted as well; the rest takes no time.
    """
    sources = [part for part in parts if part.role == IN_DOMAIN]
    if not sources:
        return None
    domains = np.concatenate([np.full(len(part.labels), part.domain) for part in sources])
    logits, labels = (np.concatenate([getattr(part, name) for part in sources]) for name in ("logits", "labels"))
    rows = [part.embeddings for part in sources if part.embeddings is not None]
    return fit(logits, labels, domains, np.concatenate(rows) if rows and drift else None)


def evaluation_of(parts: Sequence[Part], trust: Trust | None) -> Evaluation:
    """The final table's rows; the teacher has no figure where its answers are the reference."""
    rows, temperature = [], trust.temperature if trust else None
    for part in parts:
        row = row_of(part.domain, part.role, part.logits, part.labels, temperature)
        if part.zero_shot is not None and part.reference is LABELS:
            right, error = top1(part.zero_shot, part.labels), calibration_error(part.zero_shot, part.labels)
            row = replace(row, zero_shot=right, zero_shot_ece=error)
        rows.append(row)
    return Evaluation(tuple(rows), reference=parts[0].reference if parts else LABELS)


def keep_answers(parts: Sequence[Part], file: Path) -> None:
    """Write every image's answer to a .npz.

    It holds ``domain``, ``role``, ``path`` [N] text, ``label`` [N] int64, ``student`` [N, K] float16 logits, and
    ``zero_shot`` [N, K] where the teacher was asked.
    """
    kept = [_columns(part) for part in parts]
    columns: dict[str, Any] = {key: np.concatenate([part[key] for part in kept]) for key in kept[0]}
    with replacing(file) as fresh, fresh.open("wb") as handle:
        np.savez_compressed(handle, **columns)


def _columns(part: Part) -> dict[str, NDArray[Any]]:
    count = len(part.labels)
    content: dict[str, NDArray[Any]] = {"domain": np.full(count, part.domain), "role": np.full(count, part.role)}
    content |= {"path": np.array(part.paths), "label": part.labels, "student": _half(part.logits)}
    return content if part.zero_shot is None else content | {"zero_shot": _half(part.zero_shot)}


def _half(logits: Logits) -> NDArray[np.float16]:
    limit = np.finfo(np.float16).max  # a baseline's logits have none
    return np.clip(logits, -limit, limit).astype(np.float16)
