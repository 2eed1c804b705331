"""Options of Align beyond the paper: a closed-form solution, and averages over steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vl2v.config import RunConfig
from vl2v.data.batches import expected_draws
from vl2v.method.ema import Ema
from vl2v.method.ridge import Block, Floats, dual_targets, ridge, term_weights
from vl2v.method.swad import LossValley
from vl2v.training.data import TrainingData

Average = LossValley | Ema
BLOCK = 4096  # rows per block in float64


def average_of(config: RunConfig) -> Average | None:
    """Return the averaging of the projection over the steps of Align; None to use the last step."""
    if config.align.average == "swad":
        return LossValley(**config.distill.swad.model_dump())
    return Ema(config.align.ema_decay) if config.align.average == "ema" else None


def solve_projection(
    projection: nn.Module, features: NDArray[np.float32], data: TrainingData, config: RunConfig
) -> float:
    """Set the projection to the solution of the ridge regression of `vl2v.method.ridge` on all training examples.

    Args:
        projection: projection P, a linear layer; changed in place.
        features: [R, F] float32, features of the training examples.
        data: embeddings, labels and groups of the examples.
        config: settings with the image weight, the ridge penalty, and the balance of classes.

    Returns:
        The dual loss of the solution over the training examples, with the weights that they have in batches.
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
    """Return the weights [R] of the training examples in image and text term, by their frequency in batches."""
    draws = None
    if balance:
        draws = np.ones(len(data.labels))
        for rows in data.groups:
            draws[rows] = expected_draws(data.labels[rows], balance)
    return term_weights(data.groups, data.shares, data.labels >= 0, draws)


def dual_blocks(
    rows: Callable[[slice], NDArray[np.floating]], data: TrainingData, image_weight: float, balance: float
) -> Iterator[Block]:
    """Yield the regression that approximates the dual loss in blocks of rows, see `vl2v.method.ridge`.

    Args:
        rows: returns the features [B, F] of a slice of the training examples.
        data: embeddings, labels and groups of the examples.
        image_weight: weight λ of the image term.
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
