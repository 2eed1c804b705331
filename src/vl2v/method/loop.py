"""The training loop that Align and Distill share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.errors import TrainingError

AfterStep = Callable[[int, float], bool | None]


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    Attributes:
        inputs: [B, F] kept features for Align; [B, 3, H, W] normalised pixels (or whatever f takes) for Distill.
        teacher_image: [B, D], I(x).
        teacher_text: [B, D], T_y; ignored in rows without a label.
        labelled: [B] bool; None means all rows have a label.
        labels: [B] int64, the classes; anything in rows without a label. Only baselines look at them.
        image_weight: lambda of this step, where it follows a schedule; None leaves it to the objective.
    """

    inputs: Tensor
    teacher_image: Tensor
    teacher_text: Tensor
    labelled: Tensor | None = None
    labels: Tensor | None = None
    image_weight: float | None = None


Loss = Tensor | Mapping[str, Tensor]
"""A scalar, or scalars by name, the same names in every step of a stage. Their sum is minimised; each is logged."""
Objective = Callable[[Tensor, Batch], Loss]
"""What a method minimises: from the output of P, [B, D] or [B, K], and its batch to a loss."""


def total(loss: Loss) -> Tensor:
    """The scalar that is minimised: the sum of the named parts in their order.

    Raises:
        TrainingError: if a method gives something else than scalars, or no part.
    """
    value = loss if isinstance(loss, Tensor) else reduce(add, loss.values()) if loss else None
    if value is None or value.ndim:
        raise TrainingError(
            "The loss of the method cannot be minimised.",
            expected="a scalar, or a mapping of names to scalars",
            found="no part" if value is None else f"a tensor of shape {list(value.shape)}",
            next_step="correct the objective of the method, e.g. take the mean over the batch",
        )
    return value


def fit(
    module: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    objective: Objective,
    accelerator: Accelerator | None = None,
    first_step: int = 0,
    after_step: AfterStep | None = None,
) -> list[float]:
    """Run one optimiser step per batch on the objective of `module`'s output.

    Args:
        module: maps a batch's inputs to what the objective takes; with an accelerator, what `prepare` returned.
        batches: ends the training when it ends.
        optimizer: holds the trained parameters and nothing else.
        objective: gives the loss.
        accelerator: device, precision and processes; None is this process, as the tensors come.
        first_step: number of the first step.
        after_step: called with the step's number and its loss; a true answer ends the training.

    Returns:
        The loss of every step before its update, averaged over processes.

    Raises:
        TrainingError: if a loss is NaN or infinite; nothing was updated with it.
    """
    losses: list[float] = []
    for step, batch in enumerate(batches, first_step):
        loss = total(objective(module(batch.inputs).to(batch.teacher_image.dtype), batch))
        value = float(loss.detach() if accelerator is None else accelerator.reduce(loss.detach(), "mean"))
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss is not finite at step {step}.",
                expected="a finite number",
                found=str(value),
                next_step="lower the learning rate or train in full precision; the last saved state is unchanged",
            )
        optimizer.zero_grad(set_to_none=True)
        if accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            accelerator.backward(loss)
        optimizer.step()
        losses.append(value)
        if after_step and after_step(step, value):
            break
    return losses


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """Adam with the paper's settings; the decay is L2, not decoupled."""
    return torch.optim.Adam(list(parameters), lr=learning_rate, weight_decay=weight_decay)


def warmed_up(learning_rate: float, step: int, warmup_steps: int) -> float:
    """The learning rate of a step, counted from 0: a linear rise over the first `warmup_steps`, then `learning_rate`.

    Adam's first updates have the size of the learning rate in every weight, whatever the gradient's, so that a high
    rate from the first step throws a pretrained network off.
    """
    return learning_rate * min(1.0, (step + 1) / (warmup_steps + 1))
