"""An exponential moving average of weights (Polyak averaging with a fixed decay)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vl2v.method.swad import Weights


class Ema:
    """Exponential moving average: average = decay * average + (1 - decay) * weights.

    The average starts from the first weights, so it is not biased towards zero.

    Args:
        decay: in (0, 1). The average covers about the last 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self._mean: Weights = {}

    def update(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Add the weights after one step. They are copied.

        Args:
            step: number of the step. It has no influence on the average.
            weights: floating-point tensors by name, with the same names at every call.
        """
        for name, tensor in weights.items():
            if name in self._mean:
                mean = self._mean[name].to(tensor.device)  # on the CPU if it was just loaded
                self._mean[name] = mean.lerp_(tensor.detach(), 1 - self.decay)
            else:
                self._mean[name] = tensor.detach().clone()

    def average(self) -> Weights:
        """Return a copy of the current average.

        Raises:
            ValueError: if `update` has not been called yet.
        """
        if not self._mean:
            raise ValueError("expected the weights of at least one step, found none; call update first")
        return {name: tensor.clone() for name, tensor in self._mean.items()}

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """Return the state for resuming: (tensors by name, plain values)."""
        return dict(self._mean), {"decay": self.decay}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.decay = float(values["decay"])
        self._mean = {name: tensor.clone() for name, tensor in tensors.items()}
