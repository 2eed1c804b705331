"""Distill, the second stage: train the backbone against the frozen projection with the same loss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vl2v.method.loop import AfterStep, Batch, Objective, adam, fit
from vl2v.method.loss import dual_terms
from vl2v.method.swad import LossValley
from vl2v.micro_batch import InMicroBatches, MicroBatch
from vl2v.shards import Shards


@dataclass(frozen=True)
class Distilled:
    """The result of the stage Distill. The weights of the last step are in the backbone.

    Attributes:
        losses: the loss of every step, before the update.
        last_step: number of the last step, or `first_step` - 1 if there was none.
        valley_ended: whether training stopped early because the loss valley ended.
    """

    losses: list[float]
    last_step: int
    valley_ended: bool


class Projected(nn.Module):
    """P(f(x)): a trainable backbone under a frozen projection.

    Args:
        backbone: f.
        penalty: the penalty of a method (see `Method.penalty`). In training it is one more output column.
    """

    def __init__(self, backbone: nn.Module, projection: nn.Module, penalty: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection
        self.penalty = penalty

    def train(self, mode: bool = True) -> Projected:
        """Set training mode, except for the projection and batch norm, whose running statistics stay fixed."""
        super().train(mode)
        self.projection.eval()
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, ...] to [B, D], or to [B, D + 1] in training with a penalty."""
        if self.penalty is None or not self.training:
            projected: Tensor = self.projection(self.backbone(inputs))
            return projected
        features, penalty = self.penalty(self.backbone, inputs)
        projected = self.projection(features)
        return torch.cat([projected, penalty[:, None].to(projected.dtype)], dim=-1)


def trainable(
    backbone: nn.Module, projection: nn.Module | None = None, only: Collection[str] | None = None
) -> dict[str, nn.Parameter]:
    """Return the parameters that the second stage trains, by name. Weight and bias of batch norm are among them.

    Args:
        backbone: f.
        projection: P, if the method trains it too. The names of its parameters begin with ``projection/``.
        only: names of the parameters of P that are trained. None means all.
    """
    weights = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    more = projection.named_parameters() if projection is not None else ()
    return weights | {f"projection/{name}": p for name, p in more if only is None or name in only}


def distill(
    backbone: nn.Module,
    projection: nn.Module,
    batches: Iterable[Batch],
    *,
    image_weight: float = 0.5,
    objective: Objective | None = None,
    train_projection: bool | Collection[str] = False,
    penalty: nn.Module | None = None,
    learning_rate: float = 5e-5,
    weight_decay: float = 0.0,
    swad: LossValley | None = None,
    validate: Callable[[int], float | None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    accelerator: Accelerator | None = None,
    shards: Shards | None = None,
    micro: MicroBatch | None = None,
    first_step: int = 0,
    after_step: AfterStep | None = None,
) -> Distilled:
    """Train the backbone f with the dual loss while the projection P is frozen (arXiv 2310.08255, stage 2).

    The running statistics of batch norm are frozen, its weight and bias are trained. P receives no gradient and is not
    in the optimiser, unless `train_projection` is set.

    Args:
        backbone: f, which maps the inputs of a batch to [B, F]. It is trained in place.
        projection: P, which maps [B, F] to [B, D].
        batches: inputs, teacher embeddings and text targets, one batch per step.
        image_weight: lambda in [0, 1].
        objective: the loss to minimise instead of the dual loss. Other methods use it.
        train_projection: whether P is trained too, or the names of its parameters that are.
        penalty: the penalty of a method (see `Method.penalty`). Its parameters are trained too.
        weight_decay: L2 penalty of Adam.
        swad: averages the weights of every step and ends a segment at every validation. Training stops when its valley
            ends.
        validate: called after every step with the number of the step. It returns the validation loss of the current
            weights, which ends a segment, or None if this step has no validation.
        optimizer: an existing optimiser to continue with. None creates an Adam.
        accelerator: device, precision and processes. None trains on the device of the tensors.
        shards: threads that each compute a part of every batch. None computes whole batches.
        micro: number of images that are computed at once; it is halved when memory runs out. None computes whole
            batches, and an error ends the stage.
        after_step: called with (step, loss) after everything else. If it returns true, the stage ends.

    Returns:
        The losses, the last step, and whether the valley ended. `swad.average()` returns the averaged weights, with the
        names of `trainable`.

    Raises:
        TrainingError: if a loss is not finite, or memory does not suffice.
    """
    learning = () if train_projection is False else None if train_projection is True else train_projection
    for name, parameter in projection.named_parameters():
        parameter.requires_grad_(learning is None or name in learning)
    weights = trainable(backbone, projection, learning)
    more = trainable(penalty) if penalty is not None else {}
    optimizer = optimizer or adam([*weights.values(), *more.values()], learning_rate, weight_decay)
    model: nn.Module = Projected(backbone, projection, penalty)
    if micro is not None:
        model, micro.threads = InMicroBatches(model, micro), shards.count if shards else 1
    if accelerator is not None:
        model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    after = _AfterStep(model, weights, swad, validate, after_step)
    losses = fit(
        partial(shards.train, model) if shards else model,
        batches,
        optimizer,
        objective=objective or dual_terms(image_weight),
        accelerator=accelerator,
        micro=micro,
        first_step=first_step,
        after_step=after,
    )
    return Distilled(losses, first_step + len(losses) - 1, after.valley_ended)


@dataclass(frozen=True)
class _AfterStep:
    """Averages the weights, validates them and calls the caller's function; returns whether the stage ends."""

    model: nn.Module
    weights: dict[str, nn.Parameter]
    swad: LossValley | None
    validate: Callable[[int], float | None] | None
    then: AfterStep | None

    def __call__(self, step: int, loss: float) -> bool:
        if self.swad is not None:
            self.swad.update(step, self.weights)
        value = self.validate(step) if self.validate else None
        if value is not None:
            self.model.train()  # validation leaves the backbone in eval mode
            if self.swad is not None:
                self.swad.end_segment(step, value)
        return bool(self.then and self.then(step, loss)) or self.valley_ended

    @property
    def valley_ended(self) -> bool:
        return self.swad is not None and self.swad.dead_at is not None
