"""A benchmark table as plain values: each cell is a mean over seeds with its standard error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from vl2v.benchmark.statistics import Difference, Spread

PUBLISHED_MARK, ORACLE_MARK = "published", "oracle"
PAIRS, SEEDS = "pairs", "seeds"


@dataclass(frozen=True)
class Measures:
    """Means over seeds, in [0, 1].

    Attributes:
        accuracy: out-of-domain accuracy, on the target.
        in_domain: accuracy on the validation images, averaged over source domains; None if not measured.
        ece: expected calibration error on the target; None if not measured.
        ece_calibrated: `ece` with temperature scaling; None if not measured. In CSV and JSON only.
    """

    accuracy: Spread
    in_domain: Spread | None = None
    ece: Spread | None = None
    ece_calibrated: Spread | None = None


@dataclass(frozen=True)
class Expense:
    """Expense of one run, averaged over the runs of the row.

    Attributes:
        image_queries: image queries of a run with an empty store.
        text_queries: text queries of a run with an empty store.
        cost: cost of both, in `currency`.
        currency: currency; empty if nothing was charged.
    """

    image_queries: float
    text_queries: float
    cost: Decimal
    currency: str
    hours: float


@dataclass(frozen=True)
class Row:
    """A method, with one choice of weights.

    Attributes:
        method: label of the method in the grid.
        title: name of the method, without the weights.
        marks: ``published`` and ``oracle``, if they apply; every format must show them.
        weights: name of the weights; None for the saved weights and for the teacher.
        targets: measures by target domain; targets without a finished run are absent.
        average: means over all target domains, per seed; None if no seed has all of them.
        worst: target domain with the lowest mean accuracy; empty unless every target has a run.
        expense: expense of one run; None for a published row.
        against: paired difference to the baseline; None for the baseline itself or without one.
        source: publication of a published row, and its student.
    """

    method: str
    title: str
    marks: tuple[str, ...] = ()
    weights: str | None = None
    targets: Mapping[str, Measures] = field(default_factory=dict)
    average: Measures | None = None
    worst: str = ""
    expense: Expense | None = None
    against: Difference | None = None
    source: str = ""

    def accuracy(self, target: str = "") -> Spread | None:
        """Return the accuracy on a target domain, or by default its average over all; None if it is unknown."""
        measures = self.targets.get(target) if target else self.average
        return measures.accuracy if measures else None


@dataclass(frozen=True)
class Table:
    """The table of a benchmark.

    Attributes:
        targets: the target domains of the whole grid.
        seeds: the seeds of the whole grid.
        weights: the choices of weights; None for the saved ones.
        rows: measured rows, then published rows.
        baseline: the method that the others are compared with, or None.
        unit: unit of the test: ``pairs`` of target and seed, or ``seeds``.
        lacking: rows that are omitted because records are missing.
    """

    benchmark: str
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    rule: str
    weights: tuple[str | None, ...]
    rows: tuple[Row, ...]
    baseline: str | None = None
    unit: str = PAIRS
    lacking: tuple[str, ...] = ()
