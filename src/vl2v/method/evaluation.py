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
        count: number of images.
    """

    accuracy: float
    loss: float
    count: int


def totals(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sums [correct predictions, loss, images], which can be added over batches and processes.

    Args:
        logits: [B, K].
        labels: [B] int64, or the teacher's probabilities, [B, K] float32. The class with the highest probability then
            counts as correct.

    Returns:
        [3] float64.
    """
    hard = labels if labels.ndim == 1 else labels.argmax(dim=1)
    correct = (logits.argmax(dim=1) == hard).sum().double()
    if labels.ndim == 1:
        loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    else:
        loss = F.kl_div(F.log_softmax(logits, dim=1), labels, reduction="none").double().sum()
    return torch.stack([correct, loss, torch.tensor(float(len(labels)), dtype=torch.float64, device=logits.device)])


def score(logits: Tensor, labels: Tensor) -> Score:
    """Score logits [N, K] against labels [N] or probabilities [N, K], with N at least 1."""
    return from_totals(totals(logits, labels))


def from_totals(sums: Tensor) -> Score:
    """Convert summed `totals` to a score."""
    correct, loss, count = (float(value) for value in sums)
    return Score(correct / count, loss / count, int(count))


def mean_over_domains(scores: Iterable[Score]) -> Score:
    """Return the unweighted mean over domains. `count` is the sum.

    Over the validation images of the source domains, SWAD uses its loss, and its accuracy selects the best weights.
    """
    listed = list(scores)
    n = len(listed)
    return Score(sum(s.accuracy for s in listed) / n, sum(s.loss for s in listed) / n, sum(s.count for s in listed))
