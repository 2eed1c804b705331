"""What accuracy and validation loss mean, per domain and over domains (DomainBed's definitions)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """How well logits fit the labels of one domain, or the teacher's answers where there are no labels.

    Attributes:
        accuracy: top-1, in [0, 1]; without labels the share of answers that are the teacher's.
        loss: mean cross-entropy, in nats; without labels the mean divergence KL(teacher || student).
        count: how many images.
    """

    accuracy: float
    loss: float
    count: int


def totals(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums to be added over batches or processes: [3] float64 of correct answers, loss, images.

    Args:
        logits: [B, K].
        labels: [B] int64; or [B, K] float32, the teacher's probabilities, whose greatest is then the correct answer.
    """
    hard = labels if labels.ndim == 1 else labels.argmax(dim=1)
    correct = (logits.argmax(dim=1) == hard).sum().double()
    if labels.ndim == 1:
        loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    else:
        loss = F.kl_div(F.log_softmax(logits, dim=1), labels, reduction="none").double().sum()
    return torch.stack([correct, loss, torch.tensor(float(len(labels)), dtype=torch.float64, device=logits.device)])


def score(logits: Tensor, labels: Tensor) -> Score:
    """The score of [N, K] logits against [N] labels, N at least 1."""
    return from_totals(totals(logits, labels))


def from_totals(sums: Tensor) -> Score:
    """The score that summed `totals` amount to."""
    correct, loss, count = (float(value) for value in sums)
    return Score(correct / count, loss / count, int(count))


def mean_over_domains(scores: Iterable[Score]) -> Score:
    """The plain mean over domains, each counting the same whatever its size; `count` is the sum.

    Over the source domains' validation splits, its loss is SWAD's signal and its accuracy selects the best weights.
    """
    listed = list(scores)
    n = len(listed)
    return Score(sum(s.accuracy for s in listed) / n, sum(s.loss for s in listed) / n, sum(s.count for s in listed))
