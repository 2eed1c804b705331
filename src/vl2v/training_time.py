"""What a run's training takes, as a quote and a run's first lines state it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vl2v.formatting import duration

OVER = 1.1  # times the limit: more than the error of the estimate


@dataclass(frozen=True)
class TrainingTime:
    """How long training takes on this machine.

    Attributes:
        steps: of Distill, within the time limit.
        batch: images of a step.
        size: their side length in pixels.
        seconds: wall time of the run after the purchase, estimated from a few steps.
        unlimited_steps: steps without that limit.
        unlimited_seconds: their wall time.
        limit: maximum wall time in seconds that was set. A run has a minimum number of steps, which may take longer.
    """

    steps: int
    batch: int
    size: int
    seconds: float
    unlimited_steps: int
    unlimited_seconds: float
    limit: float = math.inf

    def __str__(self) -> str:
        line = f"{self.steps:,} steps of {self.batch} images of {self.size} pixels will take about "
        line += duration(self.seconds, rounded=True)
        if self.steps < self.unlimited_steps:
            if self.seconds > OVER * self.limit:
                line += f", the fewest possible, longer than {duration(self.limit, rounded=True)}"
            else:
                line += ", within the time limit"
            line += f"; {self.unlimited_steps:,} steps would take about "
            line += f"{duration(self.unlimited_seconds, rounded=True)} (--time none)"
        return line
