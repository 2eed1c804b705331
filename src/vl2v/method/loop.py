"""The training loop that Align and Distill share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vl2v.errors import TrainingError
from vl2v.micro_batch import MicroBatch

AfterStep = Callable[[int, float], bool | None]


@dataclass(frozen=True)
class Batch:
    """The input of one training step.

    Attributes:
        inputs: cached features [B, F] for Align, normalised pixels [B, 3, H, W] (or the input of f) for Distill.
        teacher_image: [B, D], the image embeddings I(x).
        teacher_text: [B, D], the text embeddings T_y of the labels. Rows without a label are ignored.
        labelled: [B] bool. None means that all rows have a label.
        labels: [B] int64, the class indices, with arbitrary values in rows without a label. Only baselines use them.
        image_weight: lambda of this step, if it follows a schedule. None leaves it to the objective.
        queried: [B] bool, false for images without an image embedding, whose row in `teacher_image` is zero. None means
            that all rows have one.
    """

    inputs: Tensor
    teacher_image: Tensor
    teacher_text: Tensor
    labelled: Tensor | None = None
    labels: Tensor | None = None
    image_weight: float | None = None
    queried: Tensor | None = None


Loss = Tensor | Mapping[str, Tensor]
"""A scalar, or scalars by name, the same in every step of a stage. Their sum is minimised, and each is logged."""
Objective = Callable[[Tensor, Batch], Loss]
"""A loss function: maps the output of P, [B, D] or [B, K], and the batch to a loss."""


def total(loss: Loss) -> Tensor:
    """Return the scalar that is minimised: the sum of the named parts in their order.

    Raises:
        TrainingError: if a part is not a scalar, or there is no part.
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
    micro: MicroBatch | None = None,
    first_step: int = 0,
    after_step: AfterStep | None = None,
) -> list[float]:
    """Run one optimiser step per batch; return the loss of every step before the update, averaged over processes.

    Args:
        module: maps the inputs of a batch to the input of the objective. With an accelerator, the module that `prepare`
            returned.
        batches: one batch per step. Training ends after the last one.
        optimizer: contains exactly the trained parameters.
        accelerator: device, precision and processes. None uses this process and the device of the tensors.
        micro: repeats a step that runs out of memory, in smaller parts. None repeats nothing.
        after_step: called with (step, loss). If it returns true, training ends.

    Raises:
        TrainingError: if a loss is NaN or infinite, or memory does not suffice. The weights are not updated with it.
    """

    def differentiate(step: int, batch: Batch) -> float:
        """Leave the gradients of a batch in the parameters; return its loss."""
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
        return value

    losses: list[float] = []
    for step, batch in enumerate(batches, first_step):
        work = partial(differentiate, step, batch)
        value = work() if micro is None else micro.attempt(len(batch.inputs), work)
        optimizer.step()
        losses.append(value)
        if after_step and after_step(step, value):
            break
    return losses


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """Return Adam with the settings of the paper. The weight decay is an L2 penalty, not decoupled."""
    return torch.optim.Adam(list(parameters), lr=learning_rate, weight_decay=weight_decay)


def warmed_up(step: int, warmup_steps: int) -> float:
    """Return the factor of the learning rate in a step: a linear warm-up over the first `warmup_steps`, then 1.

    The first updates of Adam have the size of the learning rate in every weight, whatever the size of the gradient. A
    high rate from the first step on would damage a pretrained network. Steps are counted from 0.
    """
    return min(1.0, (step + 1) / (warmup_steps + 1))
