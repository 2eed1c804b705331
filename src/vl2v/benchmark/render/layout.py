"""The layout of a table, independent of the format: titles, columns, cells of text, captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from vl2v.benchmark.results import ZERO_SHOT
from vl2v.benchmark.selection import RULES, joined
from vl2v.benchmark.statistics import Spread
from vl2v.benchmark.tables import PAIRS, PUBLISHED_MARK, Expense, Row, Table


def captions(table: Table, best: str, near: str) -> Iterator[str]:
    """Return the captions of a table, one or two sentences each.

    Args:
        best: how the best value of a column is marked.
        near: how values within one standard error of the best are marked.
    """
    many = len(table.seeds)
    seed_text = f"{many} seed{'' if many == 1 else 's'} ({', '.join(map(str, table.seeds))})"
    yield f"Top-1 accuracy in percent on each target domain, which was held out of training; {seed_text}."
    weights = "; ".join("saved by each run" if choice is None else choice for choice in table.weights)
    yield f"Selection: {RULES[table.rule]}. Weights: {weights}."
    if many > 1:
        errors = "±: standard error of the mean over seeds (n - 1)."
        yield f"{errors} The error of an average is that of the seeds' averages."
    else:
        yield "A single seed, so there is no standard error."
    yield f"{best.capitalize()}: best measured value; {near}: within one standard error of it."
    in_domain = "In-domain: validation images of the source domains."
    ece = "ECE: expected calibration error on the target, percent."
    yield f"{in_domain} {ece} Queries, cost and hours: mean per run with an empty store."
    if any(row.against for row in table.rows):
        unit = "pairs of target and seed" if table.unit == PAIRS else "seeds' averages over targets"
        test = f"mean and standard error over {unit}; p: two-sided paired t-test as if they were independent"
        same = "; each row is compared with the baseline with the same weights, the teacher with the first one"
        more = same if len(table.weights) > 1 else ""
        yield f"Differences: {test}, not corrected for the number of methods{more}."
    rows = [row for row in table.rows if PUBLISHED_MARK not in row.marks]
    counts = [row.targets[t].accuracy.count if t in row.targets else 0 for row in rows for t in table.targets]
    if min(counts, default=many) < many:
        seeds = f"n is stated if fewer than {many} seeds have finished; " if many > 1 else ""
        yield f"Unfinished grid: {seeds}averages need all {len(table.targets)} targets."
    if table.lacking:
        yield f"Omitted because records are missing: {joined(table.lacking)}."
    for source in dict.fromkeys(row.source for row in table.rows if PUBLISHED_MARK in row.marks):
        yield f"Published rows are quoted, not measured here: {source}."


BEST, NEAR = "best", "near"
ACCURACY, OTHER = "accuracy", "other"
EMPTY = "–"


@dataclass(frozen=True)
class Cell:
    """The text of a value.

    Attributes:
        value: rounded value; `EMPTY` if there is none.
        error: rounded standard error; empty if there is none.
        note: the target of the value, or the part of the runs that it is based on.
        emphasis: ``best`` in its column, ``near`` within one standard error of the best, or empty.
    """

    value: str = EMPTY
    error: str = ""
    note: str = ""
    emphasis: str = ""

    @property
    def plain(self) -> str:
        """The cell on one line, without emphasis."""
        return self.value + (f" ± {self.error}" if self.error else "") + (f" ({self.note})" if self.note else "")


Cells = list[Cell | None]  # of a column, None if a row has no value


@dataclass(frozen=True)
class Column:
    """A heading, and its group: accuracies by target, or other columns."""

    name: str
    group: str


@dataclass(frozen=True)
class Line:
    """A row: title, marks, cells in the order of the columns, and whether a rule follows."""

    title: str
    marks: tuple[str, ...]
    cells: tuple[Cell, ...]
    closes: bool

    @property
    def name(self) -> str:
        """Title and marks."""
        return " ".join([self.title, *(f"({mark})" for mark in self.marks)])


@dataclass(frozen=True)
class Layout:
    """The content of a table, for all formats."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    captions: tuple[str, ...]

    def part(self, group: str) -> Layout:
        """Return the columns of one group, without lines that are empty in them."""
        indices = [i for i, column in enumerate(self.columns) if column.group == group]
        lines = [replace(line, cells=tuple(line.cells[i] for i in indices)) for line in self.lines]
        filled = [line for line in lines if any(cell != Cell() for cell in line.cells)]
        filled[-1:] = [replace(line, closes=False) for line in filled[-1:]]
        return replace(self, columns=tuple(self.columns[i] for i in indices), lines=tuple(filled))


def lay_out(table: Table, best: str, near: str) -> Layout:
    """Round values, mark the best, and add captions; empty columns are omitted.

    Args:
        best: how the format marks the best value of a column, for the caption, e.g. ``bold``.
        near: how it marks values within one standard error of the best, e.g. ``underlined``.
    """
    columns = [(column, cells) for column, cells in _columns(table) if any(cells)]
    published = [PUBLISHED_MARK in row.marks for row in table.rows]
    lines = []
    for i, row in enumerate(table.rows):
        closes = i + 1 < len(table.rows) and published[i + 1] and not published[i]
        lines.append(Line(_title(row, table), row.marks, tuple(cells[i] or Cell() for _, cells in columns), closes))
    title = f"{table.benchmark}: accuracy on unseen domains"
    return Layout(title, tuple(column for column, _ in columns), tuple(lines), tuple(captions(table, best, near)))


def _title(row: Row, table: Table) -> str:
    several = len(table.weights) > 1 and row.expense is not None and row.method != ZERO_SHOT
    return f"{row.title}, {row.weights or 'saved'} weights" if several else row.title


def _columns(table: Table) -> list[tuple[Column, Cells]]:
    def measured(spreads: Sequence[Spread | None], best: Callable[[Iterable[float]], float] = max) -> Cells:
        return _measured(table.rows, spreads, len(table.seeds), best)

    columns = [(Column(t, ACCURACY), measured([row.accuracy(t) for row in table.rows])) for t in table.targets]
    average = measured([row.accuracy() for row in table.rows])
    average = [cell or _unfinished(row, table) for cell, row in zip(average, table.rows, strict=True)]
    worst = measured([row.accuracy(row.worst) if row.worst else None for row in table.rows])
    worst = [
        cell and replace(cell, note=", ".join(part for part in (row.worst, cell.note) if part))
        for cell, row in zip(worst, table.rows, strict=True)
    ]
    others = {
        "worst target": worst,
        "in-domain": measured([row.average.in_domain if row.average else None for row in table.rows]),
        "ECE": measured([row.average.ece if row.average else None for row in table.rows], min),
    }
    others |= _differences(table) | _expenses(table)
    return [*columns, (Column("average", ACCURACY), average), *((Column(n, OTHER), c) for n, c in others.items())]


def _measured(
    rows: Sequence[Row], spreads: Sequence[Spread | None], seeds: int, best: Callable[[Iterable[float]], float]
) -> Cells:
    """Return the cells of a column. Published rows, which have other students, are never marked as best."""
    cells = [None if spread is None else _percent(spread, seeds) for spread in spreads]
    ours = {i: s for i, s in enumerate(spreads) if s is not None and PUBLISHED_MARK not in rows[i].marks}
    means = {spread.mean for spread in ours.values()}
    if len(means) < 2:
        return cells
    top = best(means)
    error = max((s.error for s in ours.values() if s.mean == top and not math.isnan(s.error)), default=0.0)
    for i, spread in ours.items():
        if abs(spread.mean - top) <= error:
            cells[i] = replace(_percent(spread, seeds), emphasis=BEST if spread.mean == top else NEAR)
    return cells


def _percent(spread: Spread, seeds: int) -> Cell:
    fewer = 0 < spread.count < seeds
    return Cell(f"{100 * spread.mean:.1f}", _error(spread), f"n={spread.count}" if fewer else "")


def _error(spread: Spread) -> str:
    return "" if math.isnan(spread.error) else f"{100 * spread.error:.1f}"


def _unfinished(row: Row, table: Table) -> Cell | None:
    """Return the cell for an average without all targets."""
    if row.average is not None or not row.targets:
        return None
    targets, total = len(row.targets), len(table.targets)
    return Cell(note=f"{targets} of {total} targets" if targets < total else "no seed has all targets")


def _differences(table: Table) -> dict[str, Cells]:
    if table.baseline is None:
        return {}
    total = len(table.seeds) * (len(table.targets) if table.unit == PAIRS else 1)
    title = next((row.title for row in table.rows if row.method == table.baseline), table.baseline)
    differences: Cells = [None] * len(table.rows)
    ps: Cells = [None] * len(table.rows)
    for i, row in enumerate(table.rows):
        if row.against is not None:
            spread, p = row.against.spread, row.against.p
            note = f"{spread.count} pair{'s' * (spread.count > 1)}" if spread.count < total else ""
            differences[i] = Cell(f"{100 * spread.mean:+.1f}", _error(spread), note)
            ps[i] = None if math.isnan(p) else Cell("<0.001" if p < 0.001 else f"{p:.3f}")
    return {f"against {title}": differences, "p": ps}


def _expenses(table: Table) -> dict[str, Cells]:
    expenses = [row.expense for row in table.rows if row.expense]
    currencies = sorted({expense.currency for expense in expenses if expense.currency})
    columns: dict[str, Callable[[Expense], str]] = {}
    if any(expense.image_queries or expense.text_queries for expense in expenses):
        columns["image queries"] = lambda expense: f"{expense.image_queries:,.0f}"
        columns["text queries"] = lambda expense: f"{expense.text_queries:,.0f}"
    if len(currencies) == 1:
        columns[f"cost, {currencies[0]}"] = lambda expense: f"{expense.cost:.2f}"
    elif currencies:
        columns["cost"] = lambda expense: f"{expense.cost:.2f} {expense.currency}"
    columns["hours"] = lambda expense: f"{expense.hours:.2f}"
    return {
        name: [Cell(text(row.expense)) if row.expense else None for row in table.rows] for name, text in columns.items()
    }
