"""ERM, empirical risk minimisation: cross-entropy on the labels, without a teacher.

With a first stage it is the same as `lp-ft`: a linear probe, followed by fine-tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vl2v.method.base import Method, NoSettings

if TYPE_CHECKING:
    from torch import Tensor

    from vl2v.method.loop import Batch


def labels_of(batch: Batch) -> Tensor:
    """Return the labels of a batch, [B] int64.

    Raises:
        ValueError: if the batch has no labels.
    """
    if batch.labels is None:
        raise ValueError("expected labels [B] in the batch, found none")
    return batch.labels


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of logits [B, K] over the rows with a label, or 0 if there are none."""
    import torch.nn.functional as F

    loss = F.cross_entropy(logits, labels_of(batch).clamp(min=0), reduction="none")  # [B]
    if batch.labelled is None:
        return loss.mean()
    return (loss * batch.labelled).sum() / batch.labelled.sum().clamp(min=1)


ERM = Method(
    name="erm",
    title="ERM",
    settings=NoSettings,
    stages=("linear probe", "fine-tuning"),
    classifier="linear",
    objective=lambda _: cross_entropy,
    first_stage=False,
    trains_layer=True,
    queries_teacher=False,
)
