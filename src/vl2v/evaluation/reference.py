"""What predictions are compared with: labels, or the teacher's predictions if there are no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ReferenceName = Literal["labels", "teacher"]


@dataclass(frozen=True)
class Reference:
    """What predictions are compared with, and the words for the results.

    Attributes:
        measure: name of the share of equal predictions.
        key: the same as a key in JSON and CSV.
        loss: name of the validation loss.
        true: column heading for the class of an image.
        equal: word for a prediction that equals the reference.
        other: word for a prediction that differs from it.
    """

    name: ReferenceName
    measure: str
    key: str
    loss: str
    true: str
    equal: str
    other: str

    def measure_of(self, macro: bool) -> str:
        """Return the name of the measure in a table."""
        return f"macro {self.measure.removeprefix('top-1 ')}" if macro else self.measure


LABELS = Reference("labels", "top-1 accuracy", "accuracy", "cross-entropy", "true", "right", "wrong")
TEACHER = Reference(
    "teacher",
    "agreement with the teacher",
    "agreement",
    "divergence from the teacher",
    "teacher",
    "the teacher's",
    "unlike the teacher's",
)
REFERENCES = {reference.name: reference for reference in (LABELS, TEACHER)}
