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
from vl2v.method.loss import dual_objective
from vl2v.method.swad import LossValley
from vl2v.shards import Shards


@dataclass(frozen=True)
class Distilled:
    """What Distill leaves behind; the backbone itself holds the last step's weights.

    Attributes:
        losses: the loss of every step, before its update.
        last_step: number of the last step taken, or the one before the first if there was none.
        died: true if the loss valley ended and the rest of the steps was not taken.
    """

    losses: list[float]
    last_step: int
    died: bool


class Projected(nn.Module):
    """P(f(x)): a trainable backbone under a frozen projection.

    Args:
        backbone: f.
        projection: P.
        penalty: of a method that has one (see `Method.penalty`); in training it is one more column.
    """

    def __init__(self, backbone: nn.Module, projection: nn.Module, penalty: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection
        self.penalty = penalty

    def train(self, mode: bool = True) -> Projected:
        """Enter training: batch norm keeps its running statistics, the projection is in eval mode throughout."""
        super().train(mode)
        self.projection.eval()
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, ...] to [B, D]; to [B, D + 1] in training with a penalty."""
        if self.penalty is None or not self.training:
            projected: Tensor = self.projection(self.backbone(inputs))
            return projected
        features, penalty = self.penalty(self.backbone, inputs)
        projected = self.projection(features)
        return torch.cat([projected, penalty[:, None].to(projected.dtype)], dim=-1)


def trainable(
    backbone: nn.Module, projection: nn.Module | None = None, only: Collection[str] | None = None
) -> dict[str, nn.Parameter]:
    """The parameters that the second stage trains, by name: all of the backbone, batch norm's weight and bias included.

    Args:
        backbone: f.
        projection: P, for a method that trains it too; its names then begin with ``projection/``.
        only: the names of P's parameters that are trained; None are all.
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
    first_step: int = 0,
    after_step: AfterStep | None = None,
) -> Distilled:
    """Train f with the dual loss while P stands still (arXiv 2310.08255, stage 2).

    Running statistics of batch norm are frozen, its weight and bias trained. P gets no gradient and is in no optimiser,
    unless another method asks for it.

    Args:
        backbone: f, maps a batch's inputs to [B, F]; trained in place.
        projection: P, maps [B, F] to [B, D].
        batches: inputs, teacher embeddings and text targets, one batch per step.
        image_weight: lambda in [0, 1].
        objective: minimised in place of the dual loss, by other methods.
        train_projection: train P as well, or its parameters of these names.
        penalty: of a method that has one (see `Method.penalty`); what it trains is trained too.
        learning_rate: Adam's.
        weight_decay: Adam's, L2.
        swad: takes in the weights of every step and ends a segment at every validation loss; training stops when its
            valley ends.
        validate: called after every step with its number; a number is the validation loss of the current weights and
            ends a segment, None means no validation at this step.
        optimizer: goes on with this one instead of a fresh Adam.
        accelerator: device, precision and processes; None trains where the tensors are.
        shards: threads that each compute a part of every batch; None computes batches whole.
        first_step: number of the first step.
        after_step: called with (step, loss) last of all; a true answer ends the stage.

    Returns:
        Losses, last step, and whether the valley ended. The averaged weights are `swad.average()`, by the names of
        `trainable`.

    Raises:
        TrainingError: if a loss is not finite.
    """
    learning = () if train_projection is False else None if train_projection is True else train_projection
    for name, parameter in projection.named_parameters():
        parameter.requires_grad_(learning is None or name in learning)
    weights = trainable(backbone, projection, learning)
    more = trainable(penalty) if penalty is not None else {}
    optimizer = optimizer or adam([*weights.values(), *more.values()], learning_rate, weight_decay)
    model: nn.Module = Projected(backbone, projection, penalty)
    if accelerator is not None:
        model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    last = first_step - 1

    def after(step: int, loss: float) -> bool:
        nonlocal last
        last = step
        if swad is not None:
            swad.update(step, weights)
        value = validate(step) if validate else None
        if value is not None:
            model.train()  # validation leaves the backbone in eval mode
            if swad is not None:
                swad.end_segment(step, value)
        ended = bool(after_step and after_step(step, loss))
        return ended or (swad is not None and swad.dead_at is not None)

    losses = fit(
        partial(shards.train, model) if shards else model,
        batches,
        optimizer,
        objective=objective or dual_objective(image_weight),
        accelerator=accelerator,
        first_step=first_step,
        after_step=after,
    )
    return Distilled(losses, last, swad is not None and swad.dead_at is not None)
