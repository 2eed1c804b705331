"""What predictions are compared with: labels, or the teacher's predictions if there are no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ReferenceName = Literal["labels", "teacher"]


@dataclass(frozen=True)
class Reference:
    """Words for figures, by what they compare with.

    Attributes:
        name: in files.
        measure: what the share of equal answers is called.
        key: the same as a key of JSON and of CSV.
        loss: what the validation loss is called.
        true: what an image's class is called in the columns of a table.
        equal: an answer that is the reference's.
        other: an answer that is not.
    """

    name: ReferenceName
    measure: str
    key: str
    loss: str
    true: str
    equal: str
    other: str

    def measure_of(self, macro: bool) -> str:
        """What a table of figures is called."""
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
