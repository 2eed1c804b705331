"""Naive distillation: cross-entropy on the labels and on the zero-shot predictions of the teacher.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.erm import cross_entropy
from vl2v.strict import Fraction, Rate

if TYPE_CHECKING:
    from torch import Tensor

    from vl2v.method.loop import Batch, Objective


class KdSettings(Settings):
    """Naive distillation."""

    temperature: Rate = 2.0
    teacher_share: Fraction = 0.5
    """Weight of the divergence from the teacher. The rest of the loss is cross-entropy on the labels."""


def softened_divergence(
    logits: Tensor, teacher_logits: Tensor, temperature: float, queried: Tensor | None = None
) -> Tensor:
    """Return T^2 * KL(teacher || student), both softened by T, averaged over rows (section 2 of arXiv 1503.02531).

    Args:
        logits: [B, K], logits of the student.
        teacher_logits: [B, K], logits of the teacher.
        temperature: T > 0. The factor T^2 makes the size of the gradient independent of it.
        queried: [B] bool. The other rows count as 0 in the mean. None means all rows.

    Returns:
        A scalar, at least 0, and 0 only if both distributions are equal.
    """
    import torch
    import torch.nn.functional as F

    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    if queried is None:
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    rows = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)  # [B]
    return temperature**2 * torch.where(queried, rows, 0).mean()


def zero_shot_logits(context: Context[Any], batch: Batch, like: Tensor) -> Tensor:
    """Return the teacher's zero-shot logits of a batch, [B, K], with the dtype and device of `like`."""
    import torch

    from vl2v.student.model import cosine_logits

    with torch.no_grad():
        return cosine_logits(batch.teacher_image.to(like), context.head.to(like), context.logit_scale)


def _objective(context: Context[KdSettings]) -> Objective:
    temperature, share = context.settings.temperature, context.settings.teacher_share

    def objective(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        teacher_logits = zero_shot_logits(context, batch, logits)
        divergence = softened_divergence(logits, teacher_logits, temperature, batch.queried)
        return {"labels": (1 - share) * cross_entropy(logits, batch), "teacher": share * divergence}

    return objective


KD = Method(
    name="kd",
    title="naive distillation",
    settings=KdSettings,
    stages=("linear probe", "fine-tuning"),
    classifier="linear",
    objective=_objective,
    first_stage=False,
    trains_layer=True,
    queries_teacher=True,
    partial_queries=True,
)
