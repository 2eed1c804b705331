"""An exponential moving average of weights (Polyak averaging with a fixed decay)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vl2v.method.swad import Weights


class Ema:
    """average = decay * average + (1 - decay) * weights, begun with the first weights given, so without bias to zero.

    Args:
        decay: in (0, 1); about the last 1 / (1 - decay) steps count.

    Raises:
        ValueError: if the decay lies outside (0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"expected a decay in (0, 1), found {decay}")
        self.decay = decay
        self._mean: Weights = {}

    def update(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after one step; they are copied.

        Args:
            step: the step's number; all steps count the same way.
            weights: name to floating tensor, the same names every time.
        """
        for name, tensor in weights.items():
            if name in self._mean:
                mean = self._mean[name].to(tensor.device)  # just loaded from disk, it lies on the CPU
                self._mean[name] = mean.lerp_(tensor.detach(), 1 - self.decay)
            else:
                self._mean[name] = tensor.detach().clone()

    def average(self) -> Weights:
        """The average as of now, copied.

        Raises:
            ValueError: if no weights were given yet.
        """
        if not self._mean:
            raise ValueError("expected the weights of at least one step, found none; call update first")
        return {name: tensor.clone() for name, tensor in self._mean.items()}

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """Everything needed to go on: (tensors by name, plain values)."""
        return dict(self._mean), {"decay": self.decay}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.decay = float(values["decay"])
        self._mean = {name: tensor.clone() for name, tensor in tensors.items()}
