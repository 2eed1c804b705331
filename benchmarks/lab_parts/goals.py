"""The rows, targets and weights of a job, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab_parts.dataset import Dataset, Ints, Teacher
from lab_parts.variant import Job, Variant
from vl2v.data.image_changes import CHANGES
from vl2v.data.splits import domainbed_holdout, labels_per_class

STEERED = {"edges": "a sketch of a {}", "poster": "a cartoon of a {}"}  # changes that a text describes
PLAIN = "a photo of a {}"
SCALE_RATE = 1e-2  # of the learned scale's logarithm


@dataclass(frozen=True)
class Goals:
    """The training objective of a job.

    Attributes:
        groups: rows that batches are drawn from.
        shares: how many of each.
        validation: rows by source domain's name.
        test: rows by removed domain's name.
        seen: positions of the classes that training sees.
        targets: [N, D] image targets.
        head: [K, D] text targets of the seen classes.
        full_head: of all classes.
        labels: [N] among the seen classes, 0 where unknown.
        guess: [N] the label where it is known, else the teacher's answer.
        labelled: [N] float, 1 where the label is known.
        weight: [N] lambda of each image.
        teacher_logits: [N, K].
        steer: [S, K, D] what is added to a target by style, first none.
        bank: [M, D].
        scale: the teacher's logit scale.
        teacher_accuracy: of its zero-shot answers, by removed domain's name.
    """

    groups: tuple[Ints, ...]
    shares: tuple[int, ...]
    validation: dict[str, Ints]
    test: dict[str, Ints]
    seen: Ints
    targets: Tensor
    head: Tensor
    full_head: Tensor
    labels: Tensor
    guess: Tensor
    labelled: Tensor
    weight: Tensor
    teacher_logits: Tensor
    steer: Tensor
    bank: Tensor
    scale: float
    teacher_accuracy: dict[str, float]


def make_goals(job: Job, data: Dataset) -> Goals:
    """Split a data set for a job and work its targets out."""
    v, teacher, device = job.variant, data.teachers[job.teacher], data.pixels.device
    seen = np.array([i for i, name in enumerate(data.classes) if name not in v.held_classes])
    train, validation, test = _split(job, data, seen)
    known = _known(train, v, data, job.seed)
    rows = torch.from_numpy(np.concatenate(list(train.values())))
    raw_head = teacher.head(data.classes, v.prompt or None)
    labels = torch.from_numpy(np.searchsorted(seen, data.labels).clip(max=len(seen) - 1)).to(device)
    labelled = torch.from_numpy(known).to(device)
    zero_shot = teacher.scale * teacher.images @ raw_head[torch.from_numpy(seen).to(device)].T
    logits, text = zero_shot, raw_head[seen]
    if v.adapt:
        with_label = rows[torch.from_numpy(known)[rows]].to(device)
        adapted = _adapted(teacher, raw_head[seen], labels, with_label, v.adapt)
        logits = teacher.scale * teacher.images @ adapted.T
        text = adapted if v.adapt_text else text
    wrong = labelled & (zero_shot.argmax(-1) != labels)
    weight = torch.full_like(labels, v.image_weight, dtype=torch.float32)
    targets = _centred(teacher.images, teacher.images[rows.to(device)].mean(0), v.centre)
    targets = _domain_centred(targets, train, v.centre_domains)
    targets = _drawn_to_prototypes(targets, train, labels, labelled, v.prototypes)
    middle = raw_head.mean(0)
    full_head = _centred(raw_head, middle, v.centre)
    groups, shares = _groups(train, known, v)
    if v.pseudo_labels < 1:
        confident = ~labelled & (logits.softmax(-1).amax(-1) > v.pseudo_labels)
        labels = torch.where(labelled, labels, logits.argmax(-1))
        labelled = labelled | confident
    right = (teacher.images @ raw_head.T).argmax(-1).cpu().numpy() == data.labels
    return Goals(
        groups,
        shares,
        validation,
        test,
        seen,
        targets,
        text if v.adapt_text else full_head[seen],
        full_head,
        labels,
        torch.where(labelled, labels, zero_shot.argmax(-1)),
        labelled.float(),
        torch.where(wrong, v.trust_low, weight) if v.trust_low >= 0 else weight,
        logits,
        _steering(teacher, data, seen, v),
        _centred(teacher.embeddings, middle, v.centre),
        teacher.scale,
        {name: float(right[rows].mean()) for name, rows in test.items()},
    )


def _split(job: Job, data: Dataset, seen: Ints) -> tuple[dict[str, Ints], dict[str, Ints], dict[str, Ints]]:
    """Rows to train on, to validate on and to test on, by domain's name; DomainBed's split of the product."""
    train, validation, test = {}, {}, {}
    for d, name in enumerate(data.domain_names):
        rows = np.flatnonzero(data.domains == d)
        if d in job.removed:
            test[name] = rows[:: job.variant.test_every]
            continue
        rows = rows if len(seen) == len(data.classes) else rows[np.isin(data.labels[rows], seen)]
        chosen, held_out = domainbed_holdout(len(rows), job.seed, d)
        train[name] = rows if job.variant.use_validation else rows[chosen]
        validation[name] = rows[held_out]
    return train, validation, test


def _known(train: dict[str, Ints], v: Variant, data: Dataset, seed: int) -> np.ndarray:
    """Return which images have a label in training, [N] bool."""
    known = np.zeros(len(data.labels), bool)
    for d, rows in enumerate(train.values()):
        chosen = rows if v.few < 0 else labels_per_class(rows, data.labels, v.few, seed, d) if v.few else rows[:0]
        known[chosen] = True
    return known


def _groups(train: dict[str, Ints], known: np.ndarray, v: Variant) -> tuple[tuple[Ints, ...], tuple[int, ...]]:
    each = v.batch // len(train)
    if v.few <= 0 or v.label_share < 0:
        return tuple(train.values()), (each,) * len(train)
    with_label = [rows[known[rows]] for rows in train.values()]
    rest = np.concatenate([rows[~known[rows]] for rows in train.values()])
    share = round(each * v.label_share)
    return (*with_label, rest), (*[share] * len(train), (each - share) * len(train))


def _centred(rows: Tensor, mean: Tensor, strength: float) -> Tensor:
    return F.normalize(rows - strength * mean, dim=-1) if strength else rows


def _domain_centred(targets: Tensor, train: dict[str, Ints], strength: float) -> Tensor:
    """Remove a part of the mean of a source domain's images beyond the mean of all images."""
    if not strength:
        return targets
    means = torch.stack([targets[torch.from_numpy(rows)].mean(0) for rows in train.values()])
    moved = targets.clone()
    for mean, rows in zip(means, train.values(), strict=True):
        moved[torch.from_numpy(rows)] -= strength * (mean - means.mean(0))
    return F.normalize(moved, dim=-1)


def _drawn_to_prototypes(
    targets: Tensor, train: dict[str, Ints], labels: Tensor, labelled: Tensor, strength: float
) -> Tensor:
    """Labelled targets drawn to their class's mean image, the mean over the source domains' means."""
    if not strength:
        return targets
    moved = targets.clone()
    for k in torch.arange(int(labels.max()) + 1):
        parts = [rows[((labels == k) & labelled)[rows]] for rows in map(torch.from_numpy, train.values())]
        prototype = torch.stack([targets[rows].mean(0) for rows in parts if len(rows)] or [targets[0]]).mean(0)
        for rows in parts:
            moved[rows] = F.normalize((1 - strength) * targets[rows] + strength * F.normalize(prototype, dim=0), dim=-1)
    return moved


def _steering(teacher: Teacher, data: Dataset, seen: Ints, v: Variant) -> Tensor:
    """[1 + styles, K, D]: alpha times the difference that a style makes to the text of a class."""
    none = torch.zeros(len(seen), teacher.embeddings.shape[1], device=data.pixels.device)
    plain = teacher.head(data.classes, PLAIN)[seen]
    return torch.stack([none, *(v.steer * (teacher.head(data.classes, t)[seen] - plain) for t in STEERED.values())])


def style_of(change: Tensor) -> Tensor:
    """[B] int64, the position in `Goals.steer` for each change of a plan."""
    names = ["", *STEERED]
    table = torch.tensor([names.index(c.name) if c.name in STEERED else 0 for c in CHANGES] + [0])
    return table[change]  # no change is -1, the last


def _adapted(teacher: Teacher, head: Tensor, labels: Tensor, rows: Tensor, strength: float) -> Tensor:
    """The text head of least cross-entropy on labelled rows plus `strength` times the squared distance to `head`."""
    if not len(rows):
        return head
    images, wanted = teacher.images[rows], labels[rows]
    adapted = head.clone().requires_grad_()
    optimizer = torch.optim.Adam([adapted], lr=1e-2)
    with torch.enable_grad():
        for _ in range(200):
            loss = F.cross_entropy(teacher.scale * images @ F.normalize(adapted, dim=-1).T, wanted)
            loss = loss + strength * (adapted - head).square().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return F.normalize(adapted.detach(), dim=-1)
