"""Whether a teacher is worth its price: its zero-shot accuracy against that of a linear probe on frozen features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v.analysis.intervals import Share, difference, share_of

FEWEST_ANSWERS = 20  # minimum number of queried labelled images
FEWEST_IMAGES = 100  # minimum number of images that the probe predicts
FEWEST_PER_CLASS = 5  # minimum mean number of images per class for a meaningful probe
ROOM = 0.8  # accuracy of the probe below which a better teacher is recommended

DISTIL, LABELS_ALONE, OTHER_TEACHER, UNDECIDED = "distil", "labels alone", "another teacher", "undecided"
WHAT = {
    DISTIL: "distil from this teacher",
    LABELS_ALONE: "train on the labels alone (vl2v distill --method erm)",
    OTHER_TEACHER: "use another teacher",
    UNDECIDED: "the two do not differ clearly; compare both methods on a held-out domain (vl2v benchmark run)",
}


@dataclass(frozen=True)
class Advice:
    """A recommendation, and the two accuracies on which it is based.

    Attributes:
        action: `DISTIL`, `LABELS_ALONE`, `OTHER_TEACHER` or `UNDECIDED`.
        teacher: zero-shot accuracy of the teacher.
        answers: number of images for this accuracy.
        probe: accuracy of the linear probe on images that it was not fitted on.
        images: number of images for this accuracy.
        by_domain: whether each source domain in turn was left out of the probe's fit; false for random folds.
        classes: number of classes that were compared.
        of_classes: number of all classes, K.
    """

    action: str
    teacher: Share
    answers: int
    probe: Share
    images: int
    by_domain: bool
    classes: int
    of_classes: int

    @property
    def line(self) -> str:
        """The recommendation as one line of text."""
        how = "each source domain left out in turn" if self.by_domain else "5 random folds of the one source domain"
        some = "" if self.classes == self.of_classes else f" among {self.classes} of {self.of_classes} classes"
        return (
            f"advice: {WHAT[self.action]}. Zero-shot teacher {_text(self.teacher)} correct on {self.answers:,} images; "
            f"a linear probe on the student's frozen features {_text(self.probe)} on {self.images:,} ({how}){some}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, accuracies in [0, 1]."""
        return asdict(self) | {"line": self.line}


def advise(
    teacher_right: NDArray[np.bool_], probe_right: NDArray[np.bool_], by_domain: bool, classes: int, of_classes: int
) -> Advice | None:
    """Compare teacher and probe, and return a recommendation; None if there are too few images.

    If the 95% interval of the difference does not contain 0, the better one decides. If the probe is better, the
    recommendation is to train on the labels alone, or to use another teacher if the probe is wrong on more than a fifth
    of the images.

    Args:
        teacher_right: whether the teacher's zero-shot prediction is correct, for each queried image.
        probe_right: whether the probe's prediction is correct, for each image.
    """
    answers, images = len(teacher_right), len(probe_right)
    if answers < FEWEST_ANSWERS or images < max(FEWEST_IMAGES, FEWEST_PER_CLASS * classes):
        return None
    teacher = share_of(float(teacher_right.mean()), answers)
    probe = share_of(float(probe_right.mean()), images)
    low, high = difference(teacher, probe)
    action = UNDECIDED
    if low > 0:
        action = DISTIL
    elif high < 0:
        action = LABELS_ALONE if probe.value >= ROOM else OTHER_TEACHER
    return Advice(action, teacher, answers, probe, images, by_domain, classes, of_classes)


def _text(share: Share) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
