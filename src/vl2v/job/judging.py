"""Measuring a run's student on its own split, and keeping every answer for whoever wants to look closer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.job.evaluation import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    Evaluation,
    Row,
    calibration_error,
    student_logits,
    top1,
    zero_shot_logits,
)
from vl2v.job.session import Session
from vl2v.student.model import Student


def evaluate_run(session: Session, student: Student, answers: Path | None = None) -> Evaluation:
    """Measure a student on the run's validation images and held-out domains.

    Args:
        session: the run's.
        student: whatever weights it has now.
        answers: a .npz to write every image's answer to: ``domain``, ``role``, ``path`` [N] text, ``label`` [N] int64,
            ``student`` [N, K] float16 logits, and ``zero_shot`` [N, K] where the teacher was asked.
    """
    head, rows, kept = session.head(), [], []
    for role, parts in ((IN_DOMAIN, session.split.validation), (OUT_OF_DOMAIN, session.split.test)):
        for domain, places in parts.items():
            labels = session.task.labels[places]
            logits = student_logits(student, session.cache.map(), session.cache.slots(session.task.digests[places]))
            teacher = None
            if session.config.teacher.zero_shot:
                teacher = zero_shot_logits(session.vectors_of(places), head, session.card.logit_scale)
            of_teacher = (
                (None, None) if teacher is None else (top1(teacher, labels), calibration_error(teacher, labels))
            )
            found = (top1(logits, labels), of_teacher[0], calibration_error(logits, labels), of_teacher[1])
            rows.append(Row(domain, role, len(places), *found))
            kept.append(_answers(domain, role, [session.task.paths[i] for i in places], labels, logits, teacher))
    if answers is not None:
        columns: dict[str, Any] = {key: np.concatenate([part[key] for part in kept]) for key in kept[0]}
        np.savez_compressed(answers, **columns)
    return Evaluation(tuple(rows))


def _answers(
    domain: str,
    role: str,
    paths: list[str],
    labels: NDArray[np.int64],
    student: NDArray[np.float32],
    teacher: NDArray[np.float32] | None,
) -> dict[str, NDArray[Any]]:
    count = len(paths)
    content: dict[str, NDArray[Any]] = {"domain": np.full(count, domain), "role": np.full(count, role)}
    content |= {"path": np.array(paths), "label": labels, "student": student.astype(np.float16)}
    return content if teacher is None else content | {"zero_shot": teacher.astype(np.float16)}
