"""The layer of the recipe's method: the projection, and a learned gain of the logit scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LIMIT = math.log(10)  # the gain is limited to [0.1, 10]


class ScaledProjection(nn.Linear):
    """The projection P, and a learned gain: the student's logit scale divided by the teacher's.

    The parameter is the logarithm of the gain, 0 before training.

    Args:
        features: F.
        head: [K, D], the text head.
    """

    def __init__(self, features: int, head: Tensor) -> None:
        super().__init__(features, head.shape[1])
        self.log_gain = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, F] to [B, D + 1]: the projection, and the logarithm of the gain in the last column."""
        return torch.cat([super().forward(features), self._limited().expand(len(features), 1)], dim=-1)

    @property
    def gain(self) -> float:
        """The student's logit scale divided by the teacher's, in [0.1, 10]."""
        return math.exp(float(self._limited().detach()))

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """Return a copy of P without the gain."""
        alone = nn.Linear(self.in_features, self.out_features)
        alone.weight.copy_(self.weight)
        alone.bias.copy_(self.bias)
        return alone

    def _limited(self) -> Tensor:
        return self.log_gain.clamp(-LIMIT, LIMIT)
