"""Accuracy and validation loss, per domain and averaged over domains (as DomainBed defines them)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """Accuracy and loss on the images of one domain, against labels or the teacher's predictions.

    Attributes:
        accuracy: top-1 accuracy in [0, 1]. Without labels, the share of images with the same prediction as the teacher.
        loss: mean cross-entropy, in nats. Without labels, the mean divergence KL(teacher || student).
        macro: mean in [0, 1] of the recall of the classes that have images.
    """

    accuracy: float
    loss: float
    count: int
    macro: float


def totals(logits: Tensor, labels: Tensor) -> Tensor:
    """Return sums over images, which can be added over batches and processes.

    Args:
        logits: [B, K].
        labels: [B] int64, or the teacher's probabilities, [B, K] float32. The class with the highest probability then
            counts as correct.

    Returns:
        [3 + 2K] float64: correct predictions, loss, images; correct predictions by class; images by class.
    """
    hard = labels if labels.ndim == 1 else labels.argmax(dim=1)
    hits = logits.argmax(dim=1) == hard
    if labels.ndim == 1:
        loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    else:
        loss = F.kl_div(F.log_softmax(logits, dim=1), labels, reduction="none").double().sum()
    classes = logits.shape[1]
    right, images = (torch.bincount(part, minlength=classes).double() for part in (hard[hits], hard))
    return torch.cat([torch.stack([right.sum(), loss, images.sum()]), right, images])


def score(logits: Tensor, labels: Tensor) -> Score:
    """Score logits [N, K] against labels [N] or probabilities [N, K], with N at least 1."""
    return from_totals(totals(logits, labels))


def from_totals(sums: Tensor) -> Score:
    """Convert summed `totals` to a score."""
    correct, loss, count = (float(value) for value in sums[:3])
    right, images = sums[3:].chunk(2)
    present = images > 0
    return Score(correct / count, loss / count, int(count), float((right[present] / images[present]).mean()))


def mean_over_domains(scores: Iterable[Score]) -> Score:
    """Return the unweighted mean over domains. `count` is the sum.

    Over the validation images of the source domains, SWAD uses its loss, and its accuracy (or macro
    accuracy, see `vl2v.schema.DistillConfig.metric`) selects the best weights.
    """
    per_domain = list(scores)
    n = len(per_domain)
    accuracy, loss = sum(s.accuracy for s in per_domain) / n, sum(s.loss for s in per_domain) / n
    return Score(accuracy, loss, sum(s.count for s in per_domain), sum(s.macro for s in per_domain) / n)
