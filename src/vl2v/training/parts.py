"""The named parts of a method's loss, added up between two lines of `metrics.jsonl`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from vl2v.method.loop import Batch, Objective, total


class LossParts:
    """A method's objective as one number, with the sum of each of its named parts over the steps.

    The sums stay on the device of the loss and are read on demand, so that no step waits.

    Args:
        objective: the method's.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._sums: dict[str, Tensor] = {}
        self._last: tuple[weakref.ref[Batch], dict[str, Tensor]] | None = None  # a batch, and the sums before it

    def __call__(self, projected: Tensor, batch: Batch) -> Tensor:
        """What the objective gives, as a scalar; its named parts are added up.

        A batch that comes again, because its step ran out of memory, counts once.
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
        """By name, the sum since the last `clear`, averaged over the processes, all of which have to call this."""
        if not self._sums:
            return {}
        values = torch.stack([value.float() for value in self._sums.values()])
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values, "mean")
        return dict(zip(self._sums, values.tolist(), strict=True))

    def clear(self) -> None:
        """Begin again at 0."""
        self._sums = {}

    def load(self, sums: Mapping[str, float]) -> None:
        """Go on from what `sums` gave in an earlier process."""
        self._sums = {name: torch.tensor(value) for name, value in sums.items()}
