"""Make a table from the records of a grid, and from published averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from statistics import fmean

from vl2v.benchmark.published import PUBLISHED, SOURCE
from vl2v.benchmark.results import ZERO_SHOT, Record
from vl2v.benchmark.selection import LAST, ORACLE, VALIDATION, select
from vl2v.benchmark.statistics import Difference, Spread, paired
from vl2v.benchmark.tables import ORACLE_MARK, PAIRS, PUBLISHED_MARK, SEEDS, Expense, Measures, Row, Table
from vl2v.errors import ConfigError, RunError

Runs = Mapping[tuple[str, int], Record]  # by target and seed
Key = tuple[str, str | None]  # method, choice of weights

QUANTITIES: Mapping[str, Callable[[Record], float | None]] = {
    "accuracy": lambda record: record.test.accuracy,
    "in_domain": lambda record: record.validation_accuracy if record.validation else None,
    "ece": lambda record: record.test.ece,
    "ece_calibrated": lambda record: record.test.ece_calibrated,
}


def tabulate(
    records: Sequence[Record],
    benchmark: str,
    *,
    rule: str = VALIDATION,
    weights: Sequence[str | None] = (None,),
    against: str | None = None,
    unit: str = PAIRS,
    published: bool = False,
    partial: bool = False,
    order: Sequence[str] = (),
) -> Table:
    """Make the table of one benchmark. The order of the records does not matter.

    A difference to the baseline is tested by a paired t-test. With ``unit="pairs"`` every target and seed is a pair:
    targets and seeds are treated as independent samples, although seeds share a target. The p-value is therefore too
    small if the gain depends on the domain, and too large for a statement about these domains alone. With
    ``unit="seeds"`` only seeds are random, and a pair is an average over these fixed domains. With three seeds, this
    test has two degrees of freedom and little power. Neither test corrects for the number of comparisons.

    Args:
        records: records of the whole grid, which determine its targets and seeds.
        benchmark: name of the benchmark; with `published`, its published averages are added.
        rule: see `vl2v.benchmark.selection.select`.
        weights: one row per method for each choice; None for the saved weights.
        against: label of the baseline; each row is compared with the baseline's row of the same weights, the
            teacher's with that of the first.
        unit: ``pairs`` or ``seeds``.
        published: whether published averages are added.
        partial: whether to show the complete part of an unfinished grid, and what is missing.
        order: labels that come first, after the teacher; the others follow by name.

    Raises:
        ConfigError: if the baseline, the rule or the unit is unknown, or the benchmark has no published average.
        RunError: if records are missing and not `partial`, or there are none.
    """
    _check(records, against, unit)
    targets, seeds = tuple(sorted({r.target for r in records})), tuple(sorted({r.seed for r in records}))
    weights = tuple(dict.fromkeys(LAST if rule == LAST and choice is None else choice for choice in weights))
    runs_by_key, lacking = _choose(records, rule, weights, partial)
    rows = []
    for key in sorted(runs_by_key, key=lambda key: _rank(key, order, weights)):
        row = _row(key, runs_by_key[key], targets, rule)
        baseline = _key(against, weights[0] if key[0] == ZERO_SHOT else key[1]) if against else key
        if baseline != key and baseline in runs_by_key:
            row = replace(row, against=_difference(runs_by_key[key], runs_by_key[baseline], targets, unit))
        rows.append(row)
    rows += _published(benchmark) if published else []
    return Table(benchmark, targets, seeds, rule, weights, tuple(rows), against, unit, lacking)


def _check(records: Sequence[Record], against: str | None, unit: str) -> None:
    if not records:
        step = "start the grid with vl2v benchmark run"
        raise RunError("There are no results to tabulate.", expected="finished jobs", found="none", next_step=step)
    labels = sorted({record.method for record in records})
    if against is not None and against not in labels:
        expected, step = f"one of {', '.join(labels)}", "correct --against"
        raise ConfigError("Unknown baseline.", expected=expected, found=against, next_step=step)
    if unit not in (PAIRS, SEEDS):
        step = "correct the unit of the test"
        raise ConfigError("Unknown unit of the test.", expected=f"{PAIRS} or {SEEDS}", found=unit, next_step=step)


def _key(method: str, choice: str | None) -> Key:
    """Return the key of a row; the teacher has a single row, whatever the weights."""
    return method, None if method == ZERO_SHOT else choice


def _choose(
    records: Sequence[Record], rule: str, weights: Sequence[str | None], partial: bool
) -> tuple[dict[Key, Runs], tuple[str, ...]]:
    runs_by_key: dict[Key, dict[tuple[str, int], Record]] = {}
    lacking: dict[str, None] = {}  # reported once, although all weights lack it
    for choice in weights:
        selection = select(records, rule, choice)
        for record in selection.records if partial else selection.whole():
            runs_by_key.setdefault(_key(record.method, choice), {})[record.target, record.seed] = record
        lacking |= dict.fromkeys(selection.lacking)
    return dict(runs_by_key), tuple(lacking)


def _rank(key: Key, order: Sequence[str], weights: Sequence[str | None]) -> tuple[bool, int, str, int]:
    method, choice = key
    if method == ZERO_SHOT:
        return False, 0, method, 0
    return True, order.index(method) if method in order else len(order), method, weights.index(choice)


def _row(key: Key, runs: Runs, targets: Sequence[str], rule: str) -> Row:
    method, choice = key
    first = next(iter(runs.values()))
    by_target = {target: {seed: r for (t, seed), r in runs.items() if t == target} for target in targets}
    measures = {t: _measures([[record] for record in by.values()]) for t, by in by_target.items() if by}
    return Row(
        method,
        first.title,
        (ORACLE_MARK,) if rule == ORACLE and method != ZERO_SHOT else (),
        choice,
        measures,
        _average(runs, targets),
        min(measures, key=lambda t: measures[t].accuracy.mean) if len(measures) == len(targets) else "",
        _expense(list(runs.values())),
    )


def _average(runs: Runs, targets: Sequence[str]) -> Measures | None:
    """Average over the target domains per seed, then over the seeds that have all targets; None if no seed does."""
    seeds = whole_seeds(runs, targets)
    return _measures([[runs[target, seed] for target in targets] for seed in seeds]) if seeds else None


def whole_seeds(runs: Iterable[tuple[str, int]], targets: Sequence[str]) -> list[int]:
    """Return the seeds that have a run on every target."""
    runs = set(runs)
    return sorted(seed for seed in {seed for _, seed in runs} if all((target, seed) in runs for target in targets))


def _measures(groups: Sequence[Sequence[Record]]) -> Measures:
    """Average within each group of records (one group per seed), then compute mean and error over seeds."""
    spreads = {}
    for name, quantity in QUANTITIES.items():
        values = [[value for record in group if (value := quantity(record)) is not None] for group in groups]
        is_complete = all(len(v) == len(group) for v, group in zip(values, groups, strict=True))
        spreads[name] = Spread.of([fmean(v) for v in values]) if is_complete else None
    accuracy = spreads["accuracy"]
    assert accuracy is not None  # every record has one
    return Measures(accuracy, spreads["in_domain"], spreads["ece"], spreads["ece_calibrated"])


def _expense(records: Sequence[Record]) -> Expense:
    currencies = sorted({record.currency for record in records if record.cost})
    if len(currencies) > 1:
        first = records[0]
        raise RunError(
            "The runs of one method were paid in several currencies.",
            expected="one currency per method",
            found=f"{first.method}: {', '.join(currencies)}",
            next_step="give grids with different teachers different labels",
        )
    return Expense(
        fmean(record.image_queries for record in records),
        fmean(record.text_queries for record in records),
        sum((record.cost for record in records), Decimal(0)) / len(records),
        currencies[0] if currencies else "",
        fmean(record.seconds for record in records) / 3600,
    )


def _difference(row: Runs, baseline: Runs, targets: Sequence[str], unit: str) -> Difference | None:
    """Compare over the common pairs or, with ``seeds``, over the seeds in which both rows have all targets."""
    pairs = [{key: record.test.accuracy for key, record in runs.items()} for runs in (row, baseline)]
    if unit == PAIRS:
        return paired(*pairs)
    averages = [{s: fmean(p[t, s] for t in targets) for s in whole_seeds(p, targets)} for p in pairs]
    return paired(*averages)


def _published(benchmark: str) -> list[Row]:
    rows = []
    for line in PUBLISHED:
        average = line.average(benchmark)
        if average is None:
            raise ConfigError(
                "There are no published averages for this benchmark.",
                expected="PACS, VLCS, OfficeHome, TerraIncognita or DomainNet",
                found=benchmark,
                next_step="omit --published, or set the name of the benchmark (--name)",
            )
        measures = Measures(Spread(average, float("nan"), 0))
        rows.append(Row(line.method, line.title, (PUBLISHED_MARK,), average=measures, source=SOURCE))
    return rows
