"""The layout of a table, independent of the format: titles, columns and cells of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from vl2v.benchmark.records import ZERO_SHOT
from vl2v.benchmark.render.caption import captions
from vl2v.benchmark.statistics import Spread
from vl2v.benchmark.tables import PAIRS, PUBLISHED_MARK, Row, Table

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


@dataclass(frozen=True)
class _Source:
    """The source of a column; `best` is max or min of `spread` if the best value is marked."""

    column: Column
    cell: Callable[[Row], Cell | None]
    spread: Callable[[Row], Spread | None] = lambda row: None
    best: Callable[[Sequence[float]], float] | None = None


def lay_out(table: Table, best: str, near: str) -> Layout:
    """Round values, mark the best, and add captions; empty columns are omitted.

    Args:
        best: how the format marks the best value of a column, for the caption, e.g. ``bold``.
        near: how it marks values within one standard error of the best, e.g. ``underlined``.
    """
    sources = [source for source in _sources(table) if any(source.cell(row) for row in table.rows)]
    columns = [_cells(source, table.rows) for source in sources]
    published = [PUBLISHED_MARK in row.marks for row in table.rows]
    lines = []
    for i, row in enumerate(table.rows):
        closes = i + 1 < len(table.rows) and published[i + 1] and not published[i]
        lines.append(Line(_title(row, table), row.marks, tuple(cells[i] for cells in columns), closes))
    title = f"{table.benchmark}: accuracy on unseen domains"
    return Layout(title, tuple(s.column for s in sources), tuple(lines), captions(table, best, near))


def _title(row: Row, table: Table) -> str:
    several = len(table.weights) > 1 and row.expense is not None and row.method != ZERO_SHOT
    return f"{row.title}, {row.weights or 'saved'} weights" if several else row.title


def _cells(source: _Source, rows: Sequence[Row]) -> list[Cell]:
    """Return the cells of a column. Published rows, which have other students, are never marked as best."""
    cells = [source.cell(row) or Cell() for row in rows]
    spreads = {i: s for i, row in enumerate(rows) if PUBLISHED_MARK not in row.marks and (s := source.spread(row))}
    if source.best is None or len({spread.mean for spread in spreads.values()}) < 2:
        return cells
    top = source.best([spread.mean for spread in spreads.values()])
    error = max((s.error for s in spreads.values() if s.mean == top and not math.isnan(s.error)), default=0.0)
    for i, spread in spreads.items():
        if spread.mean == top:
            cells[i] = replace(cells[i], emphasis=BEST)
        elif abs(spread.mean - top) <= error:
            cells[i] = replace(cells[i], emphasis=NEAR)
    return cells


def _sources(table: Table) -> list[_Source]:
    seeds, found = len(table.seeds), []
    for target in table.targets:
        spread = partial(Row.accuracy, target=target)
        found.append(_Source(Column(target, ACCURACY), _percent(spread, seeds), spread, max))
    average, in_domain, ece = (_of_average(name) for name in ("accuracy", "in_domain", "ece"))

    def worst(row: Row) -> Spread | None:
        return row.accuracy(row.worst) if row.worst else None

    unfinished = _unfinished(table)
    found += [
        _Source(Column("average", ACCURACY), lambda r: _percent(average, seeds)(r) or unfinished(r), average, max),
        _Source(Column("worst target", OTHER), _named(_percent(worst, seeds)), worst, max),
        _Source(Column("in-domain", OTHER), _percent(in_domain, seeds), in_domain, max),
        _Source(Column("ECE", OTHER), _percent(ece, seeds), ece, min),
    ]
    return found + _differences(table) + _expenses(table)


def _of_average(name: str) -> Callable[[Row], Spread | None]:
    def spread(row: Row) -> Spread | None:
        found: Spread | None = getattr(row.average, name) if row.average else None
        return found

    return spread


def _percent(spread: Callable[[Row], Spread | None], seeds: int) -> Callable[[Row], Cell | None]:
    def cell(row: Row) -> Cell | None:
        found = spread(row)
        if found is None:
            return None
        fewer = 0 < found.count < seeds
        return Cell(f"{100 * found.mean:.1f}", _error(found), f"n={found.count}" if fewer else "")

    return cell


def _error(spread: Spread) -> str:
    return "" if math.isnan(spread.error) else f"{100 * spread.error:.1f}"


def _named(cell: Callable[[Row], Cell | None]) -> Callable[[Row], Cell | None]:
    def named(row: Row) -> Cell | None:
        found = cell(row)
        return found and replace(found, note=", ".join(part for part in (row.worst, found.note) if part))

    return named


def _unfinished(table: Table) -> Callable[[Row], Cell | None]:
    """Return the cell for an average without all targets."""
    whole = len(table.targets)

    def cell(row: Row) -> Cell | None:
        if row.average is not None or not row.targets:
            return None
        targets = len(row.targets)
        return Cell(note=f"{targets} of {whole} targets" if targets < whole else "no seed has all targets")

    return cell


def _differences(table: Table) -> list[_Source]:
    if table.baseline is None:
        return []
    whole = len(table.seeds) * (len(table.targets) if table.unit == PAIRS else 1)
    title = next((row.title for row in table.rows if row.method == table.baseline), table.baseline)

    def difference(row: Row) -> Cell | None:
        if row.against is None:
            return None
        spread = row.against.spread
        note = f"{spread.count} pair{'s' * (spread.count > 1)}" if spread.count < whole else ""
        return Cell(f"{100 * spread.mean:+.1f}", _error(spread), note)

    def p(row: Row) -> Cell | None:
        if row.against is None or math.isnan(row.against.p):
            return None
        return Cell("<0.001" if row.against.p < 0.001 else f"{row.against.p:.3f}")

    return [_Source(Column(f"against {title}", OTHER), difference), _Source(Column("p", OTHER), p)]


def _expenses(table: Table) -> list[_Source]:
    known = [row.expense for row in table.rows if row.expense]
    currencies = sorted({expense.currency for expense in known if expense.currency})
    charged = any(expense.image_queries or expense.text_queries for expense in known)
    makers: Mapping[str, Callable[[Row], str]] = {
        "image queries": lambda row: f"{row.expense.image_queries:,.0f}" if row.expense and charged else "",
        "text queries": lambda row: f"{row.expense.text_queries:,.0f}" if row.expense and charged else "",
        f"cost, {currencies[0]}" if len(currencies) == 1 else "cost": lambda row: _money(row, currencies),
        "hours": lambda row: f"{row.expense.hours:.2f}" if row.expense else "",
    }
    return [_Source(Column(name, OTHER), _text(maker)) for name, maker in makers.items()]


def _money(row: Row, currencies: Sequence[str]) -> str:
    if row.expense is None or not currencies:
        return ""
    return f"{row.expense.cost:.2f}" + (f" {row.expense.currency}" if len(currencies) > 1 else "")


def _text(maker: Callable[[Row], str]) -> Callable[[Row], Cell | None]:
    return lambda row: Cell(text) if (text := maker(row)) else None
