"""The bench's one loss, made of terms whose weights are tensors, so that one captured graph serves every variant.

Its terms are the product's: `tests/benchmark/test_lab.py` compares them with `dual_loss` and `softened_divergence`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from lab_parts.goals import Goals
from lab_parts.variant import Variant

TERMS = ("dual", "kl", "temperature", "ce", "bank", "bank_scale", "feature", "l2sp", "scale")


def weights_of(v: Variant, goals: Goals) -> Tensor:
    """[len(TERMS)] float32, the numbers that the loss uses, in the order of `TERMS`."""
    share = 0.5 if v.method == "kd" and not v.kl else v.kl
    kl, ce, dual = {"adip": (v.kl, v.ce, 1.0), "kd": (share, 1 - share, 0.0), "erm": (0.0, 1.0, 0.0)}[v.method]
    bank_scale = v.bank_scale or goals.scale
    return torch.tensor([dual, kl, v.temperature, ce, v.bank, bank_scale, v.feature, v.l2sp, goals.scale])


@dataclass(frozen=True)
class Tables:
    """The tensors of `Goals` that the loss reads by row, at fixed addresses in memory."""

    targets: Tensor
    head: Tensor
    labels: Tensor
    guess: Tensor
    labelled: Tensor
    weight: Tensor
    teacher_logits: Tensor
    steer: Tensor
    bank: Tensor
    numbers: Tensor

    @staticmethod
    def of(goals: Goals, variant: Variant) -> Tables:
        """A copy of the goals' tensors."""
        copies = {f.name: getattr(goals, f.name).clone() for f in fields(Tables) if f.name != "numbers"}
        return Tables(**copies, numbers=weights_of(variant, goals).to(goals.targets.device))

    def fill(self, goals: Goals, variant: Variant) -> None:
        """Overwrite with another job's."""
        for name, value in vars(Tables.of(goals, variant)).items():
            getattr(self, name).copy_(value)


@dataclass(frozen=True)
class Step:
    """Which images a step sees: [B] rows, positions of partners in the batch, own shares, and styles."""

    rows: Tensor
    partner: Tensor
    share: Tensor
    style: Tensor


@dataclass(frozen=True)
class Shape:
    """The constants of a captured graph: the kind of head and the number of compared texts (-1: no bank)."""

    linear: bool
    bank_top: int


def objective(
    out: Tensor, features: Tensor, pretrained: Tensor, log_gain: Tensor, step: Step, t: Tables, shape: Shape
) -> Tensor:
    """The loss of a batch.

    Args:
        out: [B, D] projected features or [B, K] logits.
        features: [B, F] of the varied images.
        pretrained: [B, F] of the images themselves, before training.
        log_gain: scalar, the logarithm of the student's scale over the teacher's.
        step: the images.
        t: the data of the images.
        shape: what is fixed.
    """
    dual, kl, temperature, ce, bank, bank_scale, feature, _l2sp, scale = t.numbers.unbind()
    rows, mate = step.rows, step.rows[step.partner]
    share, other = step.share[:, None], 1 - step.share[:, None]
    labelled = t.labelled[rows] * t.labelled[mate]
    count = labelled.sum().clamp(min=1)
    classes = torch.arange(len(t.head), device=out.device)
    answers = share * (t.labels[rows][:, None] == classes) + other * (t.labels[mate][:, None] == classes)
    teacher = share * _soft(t, rows, temperature) + other * _soft(t, mate, temperature)
    loss: Tensor = feature * (1 - F.cosine_similarity(features, pretrained, dim=-1)).mean()
    if shape.linear:
        logits = out
    else:
        direction = F.normalize(out, dim=-1)
        image = F.normalize(share * _steered(t, rows, step.style) + other * _steered(t, mate, step.style), dim=-1)
        text = F.normalize(answers @ t.head, dim=-1)
        weight = t.weight[rows]
        image_term = (weight * (direction * image).sum(-1)).mean()
        text_term = ((1 - weight) * labelled * (direction * text).sum(-1)).sum() / count
        loss = loss - dual * (image_term + text_term)
        logits = scale * log_gain.exp() * direction @ t.head.T
        if shape.bank_top >= 0:
            loss = loss + bank * _bank(direction, image, t.bank, bank_scale, shape.bank_top)
    cross = -(answers * F.log_softmax(logits, -1)).sum(-1)
    loss = loss + ce * (labelled * cross).sum() / count
    student = F.log_softmax(logits / temperature, -1)
    divergence = (torch.special.xlogy(teacher, teacher) - teacher * student).sum(-1)
    total: Tensor = loss + kl * temperature.square() * divergence.mean()
    return total


def _soft(t: Tables, rows: Tensor, temperature: Tensor) -> Tensor:
    return F.softmax(t.teacher_logits[rows] / temperature, -1)


def _steered(t: Tables, rows: Tensor, style: Tensor) -> Tensor:
    return F.normalize(t.targets[rows] + t.steer[style, t.guess[rows]], dim=-1)


def _bank(direction: Tensor, image: Tensor, bank: Tensor, scale: Tensor, top: int) -> Tensor:
    teacher, student = scale * image @ bank.T, scale * direction @ bank.T
    if top:
        teacher, positions = teacher.topk(top, dim=-1)
        student = student.gather(1, positions)
    wanted = F.log_softmax(teacher, -1)
    divergence: Tensor = F.kl_div(F.log_softmax(student, -1), wanted, reduction="batchmean", log_target=True)
    return divergence
