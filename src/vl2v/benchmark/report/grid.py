"""The finished jobs of a benchmark as values: its table, its runs and their predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v.benchmark.protocol import Job
from vl2v.benchmark.results import JOBS, ZERO_SHOT, Record, candidate_key
from vl2v.benchmark.selection import select
from vl2v.benchmark.sweep import Sweep
from vl2v.benchmark.tables import Row, Table
from vl2v.benchmark.tabulate import tabulate
from vl2v.errors import MissingExtraError
from vl2v.evaluation.evaluation import OUT_OF_DOMAIN
from vl2v.evaluation.predictions import read_predictions
from vl2v.reports.calibration import filled_bins
from vl2v.reports.sheet import Sheet
from vl2v.runs.folder import RunFolder
from vl2v.trust.calibration import Reliability, reliability
from vl2v_runtime.trust import probabilities

BASELINE = "erm"
Pairs = Mapping[tuple[str, int], float]  # accuracy on the target, by target and seed


@dataclass(frozen=True)
class GridResults:
    """Everything that the report of a benchmark shows.

    Attributes:
        table: results of the saved weights, selected on source validation images.
        baseline: method that the others are compared with; None if there is only one method.
        pairs: accuracy on the target, in [0, 1], by method, then by target and seed.
        jobs: jobs of the table by their folders.
        reliability: reliability on all targets together, by method, including the teacher.
        seconds: wall time of all finished jobs.
        note: remark on what could not be computed; may be empty.
    """

    folder: Path
    table: Table
    baseline: str | None
    pairs: Mapping[str, Pairs]
    jobs: Mapping[Path, Job]
    reliability: Mapping[str, Reliability]
    seconds: float
    finished: int
    note: str = ""

    def row(self, method: str) -> Row | None:
        """Return the row of a method in the table, or None."""
        return next((row for row in self.table.rows if row.method == method), None)


def read_grid(folder: Path) -> GridResults:
    """Read the folder of a benchmark; of an unfinished one, the finished jobs.

    Raises:
        ConfigError: if the folder is not that of a benchmark.
        RunError: if no job is finished.
    """
    sweep = Sweep.load(folder)
    grid, records = sweep.grid, sweep.records()
    labels = {record.method for record in records} - {ZERO_SHOT}
    baseline = BASELINE if BASELINE in labels and len(labels) > 1 else None
    name, order = Path(grid.settings["data"]["root"]).name, list(grid.variants)
    note = ""
    try:
        table = tabulate(records, name, against=baseline, partial=True, order=order)
    except MissingExtraError as error:  # scipy tests the differences; all else needs numpy alone
        table = replace(tabulate(records, name, partial=True, order=order), baseline=None)
        note = f"Differences are not tested: {error.next_step}."
    selection = [record for record in select(records).records if record.crossed is None]
    pairs: dict[str, dict[tuple[str, int], float]] = {}
    for record in selection:
        pairs.setdefault(record.method, {})[record.target, record.seed] = record.test.accuracy
    finished = sweep.finished()
    keys = {_key(record) for record in selection}
    jobs = {folder / JOBS / job.name: job for job in finished if job.crossed is None and _key(job) in keys}
    seconds = sum({_key(record): record.seconds for record in records}.values())
    return GridResults(folder, table, baseline, pairs, jobs, _reliabilities(jobs), seconds, len(finished), note)


def differences(results: GridResults) -> dict[str, Mapping[tuple[str, int], float]]:
    """Return the accuracy of every other method, and of the teacher, minus that of the baseline, by target and seed."""
    if results.baseline is None:
        return {}
    base = results.pairs[results.baseline]
    return {
        method: {key: value - base[key] for key, value in pairs.items() if key in base}
        for method, pairs in results.pairs.items()
        if method != results.baseline
    }


def _key(of: Record | Job) -> tuple[str, str, int, str]:
    return of.method, of.target, of.seed, candidate_key(of.candidate)


def _reliabilities(jobs: Mapping[Path, Job]) -> dict[str, Reliability]:
    """Return the reliability on the held-out images of all targets and seeds, by method.

    Predictions of the teacher count once per target and seed.
    """
    logits: dict[str, list[NDArray[np.float32]]] = {}
    labels: dict[str, list[NDArray[np.int64]]] = {}
    teacher_counted = set()
    for folder, job in jobs.items():
        run = RunFolder(folder)
        file = run.predictions_file
        predictions = read_predictions(file, origin=run.origin()) if file.is_file() else None
        part = None if predictions is None else predictions.roles().get(OUT_OF_DOMAIN)
        if part is None:
            continue
        logits.setdefault(job.method, []).append(part.student)
        labels.setdefault(job.method, []).append(part.label)
        if part.teacher is not None and (job.target, job.seed) not in teacher_counted:
            teacher_counted.add((job.target, job.seed))
            logits.setdefault(ZERO_SHOT, []).append(part.teacher)
            labels.setdefault(ZERO_SHOT, []).append(part.label)
    return {m: reliability(probabilities(np.concatenate(logits[m])), np.concatenate(labels[m])) for m in logits}


def pair_sheet(results: GridResults) -> Sheet:
    """Return a sheet with the accuracy of every run of the table and its difference to the baseline."""
    apart = differences(results)
    rows = [
        (method, target, seed, accuracy, apart.get(method, {}).get((target, seed)))
        for method, pairs in results.pairs.items()
        for (target, seed), accuracy in sorted(pairs.items())
    ]
    return Sheet("runs", ("method", "target", "seed", "accuracy", f"against {results.baseline or 'nothing'}"), rows)


def reliability_sheet(results: GridResults) -> Sheet:
    """Return a sheet with a line for every method and non-empty bin."""
    rows = [(method, *values) for method, r in results.reliability.items() for values in filled_bins(r)]
    return Sheet("reliability", ("method", "from", "to", "images", "mean_confidence", "accuracy"), rows)


def table_sheet(results: GridResults) -> Sheet:
    """Return a sheet with the targets and averages of the table."""
    rows = []
    for row in results.table.rows:
        cells = {**row.targets, "average": row.average}
        for target, m in cells.items():
            if m is not None:
                spreads = (m.accuracy, m.in_domain, m.ece)
                values = [x for s in spreads for x in ((s.mean, s.error) if s else (None, None))]
                expense = row.expense
                money = (expense.image_queries, str(expense.cost), expense.hours) if expense else (None, None, None)
                rows.append((row.method, target, m.accuracy.count, *values, *money))
    names = ("accuracy", "accuracy_se", "in_domain", "in_domain_se", "ece", "ece_se")
    return Sheet("table", ("method", "target", "seeds", *names, "image_queries", "cost", "hours"), rows)
