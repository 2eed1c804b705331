"""The results of a finished job, as used by selection, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import fmean
from typing import Any

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class DomainResult:
    """How well one domain's images were classified.

    Attributes:
        accuracy: top-1, in [0, 1].
        ece: expected calibration error, in [0, 1].
        images: how many.
        ece_calibrated: after the run's temperature; None in runs of earlier versions, and for the teacher.
    """

    accuracy: float
    ece: float
    images: int
    ece_calibrated: float | None = None


@dataclass(frozen=True)
class Record:
    """One set of weights of one job, measured.

    Attributes:
        method: its label in the grid, e.g. ``adip``; `ZERO_SHOT` for the teacher itself.
        title: its name in a table.
        target: the domain left out to test.
        seed: the run's one seed.
        candidate: the settings in which the candidates of a selection differ, dotted keys; empty if there is one only.
        weights: which weights: ``swad``, ``best``, ``last``, or ``wise-ft <share>``; empty for the teacher.
        kept: whether these are the weights that the run keeps.
        validation: by source domain, its validation images.
        test: the target domain, all its images; or, with `crossed`, that source domain.
        image_queries: images asked of the teacher if nothing was known before, fresh views among them, the zero-shot
            row's not counted.
        text_queries: prompts asked.
        cost: what those queries cost.
        currency: of `cost`.
        seconds: wall time of the job.
        inherited: whether the candidate was chosen with another seed, by source validation, and is the only one here.
        crossed: for leave-one-domain-out cross-validation, the source domain that was left out as well.
    """

    method: str
    title: str
    target: str
    seed: int
    weights: str
    kept: bool
    validation: Mapping[str, DomainResult]
    test: DomainResult
    image_queries: int
    text_queries: int
    cost: Decimal
    currency: str
    seconds: float
    candidate: Mapping[str, Any] = field(default_factory=dict)
    inherited: bool = False
    crossed: str | None = None

    @property
    def validation_accuracy(self) -> float:
        """The plain mean over source domains, what training-domain validation selects by."""
        return fmean(result.accuracy for result in self.validation.values())
