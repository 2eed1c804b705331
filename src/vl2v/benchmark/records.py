"""The results of a finished job, as used by selection, tables and plots."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import fmean
from typing import Any

ZERO_SHOT = "zero-shot"


def candidate_key(candidate: Mapping[str, Any]) -> str:
    """Return the JSON by which candidates are compared and sorted."""
    return json.dumps(dict(candidate), sort_keys=True, default=str)


@dataclass(frozen=True)
class DomainResult:
    """Results on the images of one domain.

    Attributes:
        accuracy: top-1 accuracy in [0, 1].
        ece: expected calibration error in [0, 1].
        ece_calibrated: `ece` with temperature scaling; None in runs of earlier versions, and for the teacher.
    """

    accuracy: float
    ece: float
    images: int
    ece_calibrated: float | None = None


@dataclass(frozen=True)
class Record:
    """Results of one set of weights of one job.

    Attributes:
        method: label of the method in the grid, e.g. ``adip``; `ZERO_SHOT` for the teacher itself.
        title: name of the method in tables.
        target: domain that is held out for testing.
        candidate: candidate values of settings, by dotted key; empty if there is only one candidate.
        weights: name of the weights: ``swad``, ``best``, ``last``, or ``wise-ft <share>``; empty for the teacher.
        saved: whether these are the saved weights of the run.
        validation: results on the validation images of each source domain.
        test: results on all images of the target domain or, with `crossed`, of that source domain.
        image_queries: image queries of a run with an empty store, including fresh views, without those of the
            zero-shot row.
        text_queries: text queries of a run with an empty store.
        cost: cost of these queries.
        seconds: wall time of the job.
        inherited: whether the candidate was selected with another seed and is the only one of this seed.
        crossed: source domain that was also held out, for leave-one-domain-out cross-validation.
    """

    method: str
    title: str
    target: str
    seed: int
    weights: str
    saved: bool
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
    def kept(self) -> bool:
        """The name of `saved` until 0.1, which the next release removes."""
        warnings.warn("Record.kept is now Record.saved", DeprecationWarning, stacklevel=2)
        return self.saved

    @property
    def validation_accuracy(self) -> float:
        """Mean over source domains, the criterion of training-domain validation."""
        return fmean(result.accuracy for result in self.validation.values())
