"""Align, the first stage: train the projection to the teacher's space on frozen features."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

from vl2v.method.loop import AfterStep, Batch, Objective, adam, fit
from vl2v.method.loss import dual_terms


def align(
    projection: nn.Module,
    batches: Iterable[Batch],
    *,
    image_weight: float = 0.5,
    objective: Objective | None = None,
    learning_rate: float = 5e-5,
    weight_decay: float = 0.0,
    optimizer: torch.optim.Optimizer | None = None,
    accelerator: Accelerator | None = None,
    first_step: int = 0,
    after_step: AfterStep | None = None,
) -> list[float]:
    """Train the projection P with the dual loss while the backbone f is frozen (arXiv 2310.08255, stage 1).

    The batches contain the features f(x), so f itself is not needed. If the features are cached, a step costs one small
    matrix product instead of a forward pass through the backbone.

    Args:
        projection: P, which maps [B, F] to [B, D]. It is trained in place.
        batches: features f(x), teacher embeddings and text targets, one batch per step.
        image_weight: lambda in [0, 1].
        objective: the loss to minimise instead of the dual loss. Other methods use it.
        weight_decay: L2 penalty of Adam.
        optimizer: an existing optimiser to continue with. None creates an Adam.
        accelerator: device, precision and processes. None trains on the device of the tensors.
        first_step: number of the first step, for messages and `after_step`.
        after_step: called with (step, loss). If it returns true, the stage ends.

    Returns:
        The loss of every step, before the update.

    Raises:
        TrainingError: if a loss is not finite.
    """
    projection.train()
    optimizer = optimizer or adam(projection.parameters(), learning_rate, weight_decay)
    module: nn.Module = projection
    if accelerator is not None:
        module, optimizer = accelerator.prepare(projection, optimizer)
    return fit(
        module,
        batches,
        optimizer,
        objective=objective or dual_terms(image_weight),
        accelerator=accelerator,
        first_step=first_step,
        after_step=after_step,
    )
