"""What a run's training takes, as a quote and a run's first lines state it."""

from __future__ import annotations

from dataclasses import dataclass

from vl2v.words import duration


@dataclass(frozen=True)
class TrainingTime:
    """How long training takes on this machine.

    Attributes:
        steps: of Distill, within the limit of time.
        batch: images of a step.
        size: their side length in pixels.
        seconds: wall time of the run after the purchase, estimated from a few steps.
        unlimited_steps: steps without that limit.
        unlimited_seconds: their wall time.
    """

    steps: int
    batch: int
    size: int
    seconds: float
    unlimited_steps: int
    unlimited_seconds: float

    def __str__(self) -> str:
        line = f"{self.steps:,} steps of {self.batch} images of {self.size} pixels will take about "
        line += duration(self.seconds, rounded=True)
        if self.steps < self.unlimited_steps:
            line += f", within the limit of time; {self.unlimited_steps:,} steps would take about "
            line += f"{duration(self.unlimited_seconds, rounded=True)} (--time none)"
        return line
