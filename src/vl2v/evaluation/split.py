"""Evaluate a student on the validation and test images of its run, and save all predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.data.splits import DatasetRows, Slots
from vl2v.evaluation.evaluation import IN_DOMAIN, Evaluation, Logits, domain_score, split_domains, student_answers
from vl2v.evaluation.predictions import STYLED_TEMPERATURE
from vl2v.evaluation.reference import LABELS, TEACHER, Reference
from vl2v.origin import ORIGIN
from vl2v.planning.plan import RunPlan
from vl2v.purchase import BoughtEmbeddings
from vl2v.schema import Metric
from vl2v.student.model import Student
from vl2v.teacher.base import Embeddings
from vl2v.trust.fit import fit
from vl2v.writing import atomic_write
from vl2v_runtime.trust import Trust


@dataclass(frozen=True)
class EvaluationDomain:
    """The N images of one domain that a student is evaluated on.

    Attributes:
        role: one of `vl2v.evaluation.evaluation.ROLES`.
        rows: [N] dataset rows of the images.
        slots: [N] slots of their pixels.
        embeddings: [N, D] float32 embeddings of the teacher; None if they were not bought.
    """

    role: str
    domain: str
    rows: DatasetRows
    slots: Slots
    embeddings: Embeddings | None

    def __len__(self) -> int:
        return len(self.rows)


def evaluation_domains(plan: RunPlan, bought: BoughtEmbeddings) -> tuple[EvaluationDomain, ...]:
    """Return the domains of a split in the order of `Split.evaluation_rows`. The pixel cache is searched once."""
    slots, start, domains = plan.pixels.slots(plan.dataset.digests[plan.split.evaluation_rows]), 0, []
    for role, domain, rows in split_domains(plan.split):
        positions = slice(start, start + len(rows))
        embeddings = None if bought.evaluation is None else bought.evaluation[positions]
        domains.append(EvaluationDomain(role, domain, rows, slots[positions], embeddings))
        start += len(rows)
    return tuple(domains)


@dataclass(frozen=True)
class DomainPredictions:
    """Predictions of a student for the N images of one domain.

    Attributes:
        role: one of `vl2v.evaluation.evaluation.ROLES`.
        paths: N paths, relative to the data folder.
        names: N names of the images in an imported dataset; None if the data were not imported.
        labels: [N]; the teacher's predictions if the images have no labels.
        logits: [N, K] logits of the student, without temperature scaling.
        embeddings: [N, D] embeddings of the student, rows of length one; None without a text head.
        zero_shot: [N, K] logits of the teacher; None if its embeddings were not bought.
        classes: K class names.
    """

    domain: str
    role: str
    paths: Sequence[str]
    labels: NDArray[np.int64]
    logits: Logits
    embeddings: NDArray[np.float32] | None
    zero_shot: Logits | None = None
    reference: Reference = LABELS
    classes: Sequence[str] = ()
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def predict_domains(
    plan: RunPlan, bought: BoughtEmbeddings, domains: Sequence[EvaluationDomain], student: Student
) -> tuple[DomainPredictions, ...]:
    """Predict the images of a split with a student and with the zero-shot teacher."""
    pixels, predictions = plan.pixels.map(), []
    for part in domains:
        logits, embeddings = student_answers(student, pixels, part.slots)
        labels, reference = plan.dataset.labels[part.rows], LABELS
        teacher = None if part.embeddings is None else bought.zero_shot(part.embeddings)
        if teacher is not None and not plan.labelled:
            labels, reference = teacher.argmax(axis=1).astype(np.int64), TEACHER
        paths = [plan.dataset.paths[row] for row in part.rows]
        names = plan.dataset.known_as(part.rows.tolist()) if plan.dataset.imported else None
        prediction = DomainPredictions(
            part.domain, part.role, paths, labels, logits, embeddings, teacher, reference, student.classes, names
        )  # fmt: skip
        predictions.append(prediction)
    return tuple(predictions)


def trust_of(
    parts: Sequence[DomainPredictions], drift: bool = True, styled_temperature: float | None = None
) -> Trust | None:
    """Fit trust data on the in-domain predictions, if there are any. Held-out domains are not used.

    Args:
        drift: whether to fit a drift reference too, which takes longer than the rest.
        styled_temperature: as in `vl2v.trust.fit.fit`.
    """
    sources = [part for part in parts if part.role == IN_DOMAIN]
    if not sources:
        return None
    domains = np.concatenate([np.full(len(part.labels), part.domain) for part in sources])
    logits, labels = (np.concatenate([getattr(part, name) for part in sources]) for name in ("logits", "labels"))
    rows = [part.embeddings for part in sources if part.embeddings is not None]
    return fit(logits, labels, domains, np.concatenate(rows) if rows and drift else None, styled_temperature)


def evaluation_of(parts: Sequence[DomainPredictions], trust: Trust | None, metric: Metric = "accuracy") -> Evaluation:
    """Compute the results of all domains. If the teacher is the reference, its accuracy is not computed."""
    rows, temperature = [], trust.temperature if trust else None
    for part in parts:
        row = domain_score(part.domain, part.role, part.logits, part.labels, temperature, part.classes)
        if part.zero_shot is not None and part.reference is LABELS:
            row = row.with_teacher(part.zero_shot, part.labels)
        rows.append(row)
    return Evaluation(tuple(rows), reference=parts[0].reference if parts else LABELS, metric=metric)


def save_predictions(
    parts: Sequence[DomainPredictions], file: Path, origin: str = "", styled_temperature: float | None = None
) -> None:
    """Write all predictions to an .npz file.

    The arrays are ``origin`` (that of the student, if it is known), ``domain``, ``role`` and ``path`` [N] of text,
    ``name`` [N] of text if the data were imported from a dataset of another tool, ``label`` [N] int64, ``student``
    [N, K] float16 logits, ``zero_shot`` [N, K] float16 if the teacher's embeddings were bought, and
    ``styled_temperature`` (that of `vl2v.evaluation.styles`, if there are validation images).
    """
    domains = [_columns(part) for part in parts]
    columns: dict[str, Any] = {key: np.concatenate([part[key] for part in domains]) for key in domains[0]}
    columns |= {ORIGIN: np.array(origin)} if origin else {}
    columns |= {STYLED_TEMPERATURE: np.array(styled_temperature)} if styled_temperature else {}
    with atomic_write(file) as fresh, fresh.open("wb") as handle:
        np.savez_compressed(handle, **columns)


def _columns(part: DomainPredictions) -> dict[str, NDArray[Any]]:
    count = len(part.labels)
    content: dict[str, NDArray[Any]] = {"domain": np.full(count, part.domain), "role": np.full(count, part.role)}
    content |= {"path": np.array(part.paths), "label": part.labels, "student": _half(part.logits)}
    content |= {} if part.names is None else {"name": np.array(part.names)}
    return content if part.zero_shot is None else content | {"zero_shot": _half(part.zero_shot)}


def _half(logits: Logits) -> NDArray[np.float16]:
    """Round logits [N, K] to half precision without changing the most probable class of an image."""
    limit = np.finfo(np.float16).max  # logits of a baseline can be larger
    rounded = np.clip(logits, -limit, limit).astype(np.float16)
    top = logits.argmax(axis=1)[:, None]
    tied = rounded == np.take_along_axis(rounded, top, axis=1)
    np.put_along_axis(tied, top, False, axis=1)
    rounded[tied] = np.nextafter(rounded[tied], np.float16(-limit))
    return rounded
