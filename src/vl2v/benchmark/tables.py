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
        accuracy: out of domain, on the target.
        in_domain: on the source domains' validation images, the plain mean over domains; None if not measured.
        ece: expected calibration error on the target; None if not measured.
        ece_calibrated: after each run's temperature; None if not measured. In CSV and JSON only.
    """

    accuracy: Spread
    in_domain: Spread | None = None
    ece: Spread | None = None
    ece_calibrated: Spread | None = None


@dataclass(frozen=True)
class Expense:
    """What one run took, the plain mean over the row's runs.

    Attributes:
        image_queries: images asked of the teacher if nothing was known before.
        text_queries: prompts asked.
        cost: of both, in `currency`.
        currency: empty if nothing was paid.
        hours: wall time.
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
        method: its label in the grid.
        title: the method's name, without the weights.
        marks: ``published`` and ``oracle``, where they hold; to be shown wherever the row is.
        weights: the choice asked for, None for those that the runs keep, and for the teacher.
        targets: by target domain; a target without a finished run is absent.
        average: of the per-seed means over all target domains; None unless some seed has all of them.
        worst: the target domain of the lowest mean accuracy; empty unless every target has a run.
        expense: None for a published row.
        against: the paired difference to the baseline, None for the baseline itself or without one.
        source: where a published row is from, its student included.
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


@dataclass(frozen=True)
class Table:
    """The table of a benchmark.

    Attributes:
        benchmark: its name.
        targets: the target domains of the whole grid.
        seeds: the seeds of the whole grid.
        rule: the selection rule.
        weights: the choices of weights; None for the saved ones.
        rows: measured ones, then published ones.
        baseline: the method that differences are against, or None.
        unit: what a difference pairs, ``pairs`` of target and seed, or ``seeds``.
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
