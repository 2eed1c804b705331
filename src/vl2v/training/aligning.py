"""Options of Align beyond the paper: a closed-form solution, and averages over steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vl2v.config import RunConfig
from vl2v.data.balance import expected_draws
from vl2v.method.ema import Ema
from vl2v.method.ridge import Block, Floats, dual_targets, ridge, term_weights
from vl2v.method.swad import LossValley
from vl2v.training.data import TrainingData

Average = LossValley | Ema
BLOCK = 4096  # rows held in float64 at once


def average_of(config: RunConfig) -> Average | None:
    """What averages the projection over Align's steps; None keeps the last step's."""
    if config.align.average == "swad":
        return LossValley(**config.distill.swad.model_dump())
    return Ema(config.align.ema_decay) if config.align.average == "ema" else None


def solve(projection: nn.Module, features: NDArray[np.float32], data: TrainingData, config: RunConfig) -> float:
    """Set P to what the ridge regression of `method.ridge` gives on all training rows.

    Args:
        projection: P, a linear layer; changed in place.
        features: [R, F] float32, f(x) of the training rows.
        data: their embeddings, labels and groups.
        config: lambda, the strength of the penalty, and the balance of the classes.

    Returns:
        The dual loss of the solved P over the training rows, weighted as the batches weight them.
    """
    assert isinstance(projection, nn.Linear)

    def blocks() -> Iterator[Block]:
        return dual_blocks(features.__getitem__, data, config.image_weight, config.data.exponent)

    weight, bias = ridge(blocks(), config.align.ridge)
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy(weight))
        projection.bias.copy_(torch.from_numpy(bias))
    loss = 0.0
    for part, directions, pulls in blocks():
        projected = part @ weight.T + bias
        lengths = np.maximum(np.linalg.norm(projected, axis=1), 1e-12)
        loss -= float(pulls @ ((projected * directions).sum(axis=1) / lengths))
    return loss


def row_weights(data: TrainingData, balance: float) -> tuple[Floats, Floats]:
    """The weights of all training rows in the image and in the text term, by how often batches have them; both [R]."""
    draws = None
    if balance:
        draws = np.ones(len(data.labels))
        for rows in data.groups:
            draws[rows] = expected_draws(data.labels[rows], balance)
    return term_weights(data.groups, data.shares, data.labels >= 0, draws)


def dual_blocks(
    rows: Callable[[slice], NDArray[np.floating]], data: TrainingData, image_weight: float, balance: float
) -> Iterator[Block]:
    """The regression that approximates the dual loss, see `vl2v.method.ridge`, in blocks of rows.

    Args:
        rows: gives f(x), [B, F], of a part of the training rows.
        data: their embeddings, labels and groups.
        image_weight: lambda.
        balance: exponent of class-balanced sampling.
    """
    assert data.embeddings is not None
    head, labels = data.head.numpy(), data.labels
    image, text = row_weights(data, balance)
    for start in range(0, len(labels), BLOCK):
        part = slice(start, start + BLOCK)
        texts = head[labels[part].clip(min=0)]
        directions, pulls = dual_targets(data.embeddings[part], texts, image[part], text[part], image_weight)
        yield rows(part), directions, pulls
