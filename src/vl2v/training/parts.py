"""The named parts of a loss, summed between two lines of `metrics.jsonl`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from vl2v.method.loop import Batch, Objective, total


class LossParts:
    """An objective that returns a scalar loss, and sums its named parts over the steps.

    The sums remain on the device until they are read, so that no step waits for them.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._sums: dict[str, Tensor] = {}
        self._last: tuple[weakref.ref[Batch], dict[str, Tensor]] | None = None  # the last batch, and the sums before it

    def __call__(self, projected: Tensor, batch: Batch) -> Tensor:
        """Return the loss as a scalar, and add its named parts to the sums.

        If a step is repeated because memory ran out, its batch counts once.
        """
        if self._last is not None and self._last[0]() is batch:
            self._sums = self._last[1]
        self._last = weakref.ref(batch), dict(self._sums)
        loss = self._objective(projected, batch)
        if not isinstance(loss, Tensor):
            for name, part in loss.items():
                sums, value = self._sums.get(name), part.detach()
                self._sums[name] = value if sums is None else sums.to(value) + value
        return total(loss)

    def sums(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the sums since the last `clear` by name, averaged over the processes. All processes must call this."""
        if not self._sums:
            return {}
        values = torch.stack([value.float() for value in self._sums.values()])
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values, "mean")
        return dict(zip(self._sums, values.tolist(), strict=True))

    def clear(self) -> None:
        """Set all sums to 0."""
        self._sums = {}

    def load(self, sums: Mapping[str, float]) -> None:
        """Continue with the sums of an interrupted run."""
        self._sums = {name: torch.tensor(value) for name, value in sums.items()}
