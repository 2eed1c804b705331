"""SWAD: dense weight averaging over the loss valley (Cha et al., NeurIPS 2021)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vl2v.errors import TrainingError

Weights = dict[str, Tensor]


class RunningMean:
    """Running mean of a sequence of weights, with one copy in memory.

    Args:
        weights: the current mean, floating-point tensors by name. It is updated in place.
        count: number of weights in the mean. With 0, the next weights replace it.
    """

    def __init__(self, weights: Weights | None = None, count: int = 0) -> None:
        self.weights = weights or {}
        self.count = count

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Add one set of weights: mean += (weights - mean) / (count + 1)."""
        if self.count == 0:
            self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        else:
            new = [weights[name].detach() for name in self.weights]
            mean = [old.to(tensor.device) for old, tensor in zip(self.weights.values(), new, strict=True)]  # from disk
            torch._foreach_add_(mean, torch._foreach_sub(new, mean), alpha=1 / (self.count + 1))
            self.weights = dict(zip(self.weights, mean, strict=True))
        self.count += 1


@dataclass(frozen=True)
class Segment:
    """Mean of the weights between two validations.

    Attributes:
        weights: the mean, on the CPU.
        loss: validation loss at the end of the segment.
        start: step of the first weights.
        end: step of the last weights.
    """

    weights: Weights
    loss: float
    start: int
    end: int


class LossValley:
    """Find the loss valley and average the weights in it, as the published implementation does.

    Call `update` after every step and `end_segment` after every validation. The valley begins when the first of the
    last `n_converge` segments has the lowest loss of these. The loss threshold, `threshold`, is then the mean of these
    losses times (1 + `tolerance_ratio`). The valley ends when the last `n_tolerance` losses all exceed it.

    The published results depend on three properties of the published code, which are reproduced here:

    - The segment at the convergence point has weight zero, so the next one replaces it.
    - With ``n_tolerance > n_converge``, the first segments of the valley are counted more than once.
    - All segments have the same weight, whatever their length.

    Args:
        n_converge: number of latest segments that are checked for convergence, at least 1.
        n_tolerance: number of latest segments that are checked for the end of the valley, at least 1.
        tolerance_ratio: loss threshold relative to the mean loss at convergence, minus 1.
        segments: ``reset`` starts a new mean after every segment, as in the paper of SWAD. ``accumulate`` restarts it
            only after segments that end at a step above 2500 that is divisible by 1000, as the code of VL2V-ADiP does
            by default.
    """

    def __init__(
        self,
        n_converge: int = 3,
        n_tolerance: int = 6,
        tolerance_ratio: float = 0.3,
        segments: Literal["reset", "accumulate"] = "reset",
    ) -> None:
        self.n_converge, self.n_tolerance, self.tolerance_ratio = n_converge, n_tolerance, tolerance_ratio
        self.segments = segments
        self.converged_at: int | None = None
        self.dead_at: int | None = None
        self.threshold: float | None = None
        self._running = RunningMean()
        self._start: int | None = None
        self._recent: deque[Segment] = deque(maxlen=n_converge)
        self._waiting: deque[Segment] = deque(maxlen=n_tolerance)
        self._valley = RunningMean()

    def update(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Add the weights after one step. They are copied.

        Args:
            step: number of the step, increasing from call to call.
            weights: tensors by name, with the same names at every call.
        """
        if self._start is None:
            self._start = step
        self._running.add(weights)

    def end_segment(self, step: int, val_loss: float) -> None:
        """End the current segment at `step`, with the validation loss of the current weights (not of the average).

        Raises:
            ValueError: if `update` has not been called since the last segment.
            TrainingError: if the loss is NaN.
        """
        if self._start is None:
            raise ValueError(f"expected weights first (call update), found none at step {step}")
        if math.isnan(val_loss):
            raise TrainingError(
                f"The validation loss is not finite at step {step}.",
                expected="a finite number",
                found=str(val_loss),
                next_step="lower the learning rate or train in full precision; the last saved state is unchanged",
            )
        if self.dead_at is None:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self._running.weights.items()}
            segment = Segment(weights, float(val_loss), self._start, step)
            self._recent.append(segment)
            self._waiting.append(segment)
            if self.converged_at is None:
                self._find_valley()
            elif self._waiting[0].end >= self.converged_at:
                self._find_end(step)
        if self.segments == "reset" or (step % 1000 == 0 and step > 2500):
            self._running, self._start = RunningMean(), None

    def average(self) -> Weights:
        """Return a copy of the current average. The state does not change.

        Before convergence, this is the mean of the last segment.

        Raises:
            ValueError: if no segment has ended yet.
        """
        if not self._recent:
            raise ValueError("expected at least one completed segment, found none; call end_segment first")
        if self.converged_at is None:
            return _copy(self._recent[-1].weights)
        assert self.threshold is not None
        mean = RunningMean(_copy(self._valley.weights), self._valley.count)
        tail = list(self._waiting)[1:] if self.dead_at is None else []  # the valley may not have ended before training
        while tail and min(segment.loss for segment in tail) <= self.threshold:
            mean.add(tail.pop(0).weights)
        return mean.weights

    def _find_valley(self) -> None:
        losses = [segment.loss for segment in self._recent]
        if len(losses) < self.n_converge or losses[0] != min(losses):
            return
        first = self._recent[0]
        self.converged_at = first.end
        self.threshold = sum(losses) / len(losses) * (1 + self.tolerance_ratio)
        self._valley = RunningMean(_copy(first.weights), 0)
        entered: list[Segment] = []
        if self.n_tolerance < self.n_converge:
            entered = list(self._recent)[1 : 1 + self.n_converge - self.n_tolerance]
        elif self.n_tolerance > self.n_converge:
            queue = list(self._waiting)[: self.n_tolerance - self.n_converge + 1]
            above = [i for i, segment in enumerate(queue) if segment.loss > self.threshold]
            entered = queue[above[-1] + 2 if above else 1 :]
        for segment in entered:
            self._valley.add(segment.weights)

    def _find_end(self, step: int) -> None:
        assert self.threshold is not None
        if min(segment.loss for segment in self._waiting) > self.threshold:
            self.dead_at = step
        else:
            self._valley.add(self._waiting[0].weights)

    def state(self) -> tuple[Weights, dict[str, Any]]:
        """Return the state for resuming: (tensors by name, plain values). A segment in both queues is stored once."""
        unique = {id(segment): segment for segment in [*self._recent, *self._waiting]}
        indices = {key: i for i, key in enumerate(unique)}
        tensors = {f"running/{k}": v for k, v in self._running.weights.items()}
        tensors |= {f"valley/{k}": v for k, v in self._valley.weights.items()}
        for i, segment in enumerate(unique.values()):
            tensors |= {f"segment{i}/{k}": v for k, v in segment.weights.items()}
        values = {
            "converged_at": self.converged_at,
            "dead_at": self.dead_at,
            "threshold": self.threshold,
            "start": self._start,
            "running": self._running.count,
            "valley": self._valley.count,
            "segments": [(s.loss, s.start, s.end) for s in unique.values()],
            "recent": [indices[id(s)] for s in self._recent],
            "waiting": [indices[id(s)] for s in self._waiting],
        }
        return tensors, values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore a state that `state` returned. The settings must be the same."""

        def part(name: str) -> Weights:
            return {k.removeprefix(f"{name}/"): v.clone() for k, v in tensors.items() if k.startswith(f"{name}/")}

        segments = [
            Segment(part(f"segment{i}"), loss, start, end) for i, (loss, start, end) in enumerate(values["segments"])
        ]
        self.converged_at, self.dead_at = values["converged_at"], values["dead_at"]
        self.threshold, self._start = values["threshold"], values["start"]
        self._running = RunningMean(part("running"), values["running"])
        self._valley = RunningMean(part("valley"), values["valley"])
        self._recent = deque((segments[i] for i in values["recent"]), self.n_converge)
        self._waiting = deque((segments[i] for i in values["waiting"]), self.n_tolerance)


def _copy(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}
