"""Align, the first stage: train the projection to the teacher's space on frozen features."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import nn

from vl2v.method.loop import AfterStep, Batch, Objective, adam, fit
from vl2v.method.loss import dual_objective


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
    """Train P with the dual loss while f stands still (arXiv 2310.08255, stage 1).

    f does not appear: its features are given. Compute them once, keep them, and a step costs one small matrix product
    instead of a pass through the backbone.

    Args:
        projection: P, maps [B, F] to [B, D]; trained in place.
        batches: features f(x), teacher embeddings and text targets, one batch per step.
        image_weight: lambda in [0, 1].
        objective: minimised in place of the dual loss, by other methods.
        learning_rate: Adam's.
        weight_decay: Adam's, L2.
        optimizer: goes on with this one instead of a fresh Adam.
        accelerator: device, precision and processes; None trains where the tensors are.
        first_step: number of the first step, for messages and `after_step`.
        after_step: called with (step, loss); a true answer ends the stage.

    Returns:
        The loss of every step, before its update.

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
        objective=objective or dual_objective(image_weight),
        accelerator=accelerator,
        first_step=first_step,
        after_step=after_step,
    )
