"""MIRO: cross-entropy, regularised by mutual information with the pretrained backbone.

Cha et al., "Domain Generalization by Mutual-Information Regularization with Pre-trained Models", ECCV 2022
(arXiv 2203.10789). Every batch also passes through a frozen copy of the pretrained backbone, the oracle. A step
costs one more forward pass, and the weights of the backbone are in memory twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vl2v.method.base import Context, Method, Settings
from vl2v.method.baselines.erm import cross_entropy
from vl2v.strict import Rate, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vl2v.method.loop import Batch, Objective


class MiroSettings(Settings):
    """MIRO. The defaults are those of the paper."""

    weight: Weight = 0.1
    """Weight of the regularisation by the pretrained backbone."""
    learning_rate_factor: Rate = 10.0
    """Learning rate of the variances, relative to that of the other parameters."""


def _objective(context: Context[MiroSettings]) -> Objective:
    classes, weight = len(context.head), context.settings.weight

    def objective(output: Tensor, batch: Batch) -> dict[str, Tensor]:
        parts = {"labels": cross_entropy(output[:, :classes], batch)}
        if output.shape[1] > classes:  # not in the first stage, in which the features are fixed
            parts["oracle"] = weight * output[:, classes].mean()
        return parts

    return objective


def _penalty(backbone: nn.Module, sample: Tensor) -> nn.Module:
    from vl2v.method.baselines.oracle import Oracle

    return Oracle(backbone, sample)


MIRO = Method(
    name="miro",
    title="MIRO",
    settings=MiroSettings,
    stages=("linear probe", "fine-tuning"),
    classifier="linear",
    objective=_objective,
    first_stage=False,
    trains_layer=True,
    queries_teacher=False,
    penalty=_penalty,
    penalty_rate=lambda settings: settings.learning_rate_factor,
)
