"""ERM, empirical risk minimisation: cross-entropy on the labels, without a teacher.

With steps of the first stage it is what `lp-ft` is: a linear probe first, then fine-tuning from it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vl2v.method.base import Context, Method, NoSettings
from vl2v.method.loop import Batch, Objective


def labels_of(batch: Batch) -> Tensor:
    """A batch's labels, [B] int64.

    Raises:
        ValueError: if it has none.
    """
    if batch.labels is None:
        raise ValueError("expected labels [B] in the batch, found none")
    return batch.labels


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of [B, K] logits over the rows with a label; 0 if there is none."""
    loss = F.cross_entropy(logits, labels_of(batch).clamp(min=0), reduction="none")  # [B]
    if batch.labelled is None:
        return loss.mean()
    return (loss * batch.labelled).sum() / batch.labelled.sum().clamp(min=1)


def _objective(_: Context[NoSettings]) -> Objective:
    return cross_entropy


ERM = Method(
    name="erm",
    title="ERM",
    settings=NoSettings,
    stages=("linear probe", "fine-tuning"),
    classifier="linear",
    objective=_objective,
    first_stage=False,
    trains_layer=True,
    asks_teacher=False,
)
