"""The HTML page of a benchmark's report."""

from __future__ import annotations

import math
import os
from pathlib import Path
from urllib.parse import quote

from vl2v.benchmark.render.html import to_tables
from vl2v.benchmark.report.figures import difference_panel, expense_panel, reliability_panel, target_panels, trade_panel
from vl2v.benchmark.report.grid import GridResults, pair_sheet, read_grid, reliability_sheet, table_sheet
from vl2v.benchmark.results import ZERO_SHOT
from vl2v.benchmark.statistics import Spread
from vl2v.benchmark.tables import Row
from vl2v.config import DEFAULT_METHOD
from vl2v.formatting import count, duration, listed, money, percent
from vl2v.reports.page import Figure, Page, Section, Tile
from vl2v.reports.run import foot

LEADING = DEFAULT_METHOD


def write_benchmark_report(folder: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` and ``report/*.csv`` for a benchmark, replacing older files, and return the page's path.

    Args:
        out: folder to write to, created if it is missing. None writes to `folder`.

    Raises:
        ConfigError: if the folder is not that of a benchmark.
        RunError: if no job is finished.
    """
    grid = read_grid(folder)
    note, tables = [grid.note] if grid.note else [], str(to_tables(grid.table))
    table = Section("table", "Table", missing=note, html=tables)
    sections = [_accuracy(grid), table, _pairs(grid), _expense(grid), _reliability(grid), _jobs(grid, out)]
    title = f"{grid.table.benchmark}: accuracy on unseen domains"
    page = Page("Report of a benchmark", title, _lead(grid), _tiles(grid), sections, foot(), [table_sheet(grid)])
    return page.write(out or folder)


def _leading(results: GridResults) -> Row | None:
    """Return the row that the summary describes: the default method, or else the method with the best average."""
    rows = [row for row in results.table.rows if row.expense and row.method != ZERO_SHOT]
    means = [(row, accuracy.mean) for row in rows if (accuracy := row.accuracy())]
    defaults = [row for row, _ in means if row.method == LEADING]
    return defaults[0] if defaults else max(means, key=lambda pair: pair[1], default=(None,))[0]


def _with_error(spread: Spread) -> str:
    return percent(spread.mean) + ("" if math.isnan(spread.error) else f" ± {100 * spread.error:.1f}")


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def _lead(results: GridResults) -> str:
    row, table = _leading(results), results.table
    targets, seeds = len(table.targets), len(table.seeds)
    where = f"{targets} domain{'s' if targets > 1 else ''} of {table.benchmark}, each left out of training in turn"
    over = f"over {seeds} seed{'s' if seeds > 1 else ''}"
    if row is None or row.average is None:
        return f"{results.finished} jobs have finished on {where}. No method has finished runs on all targets yet."
    text = f"On {where}, {row.title} reaches {_with_error(row.average.accuracy)} {over}"
    if row.average.in_domain:
        text += f" ({_with_error(row.average.in_domain)} in-domain)"
    base = results.row(results.baseline or "")
    if row.against is not None and base is not None:
        gap = row.against.spread.percent
        text += f", {_signed(gap.mean)} ± {gap.error:.1f} points compared with {base.title}"
    teacher = results.row(ZERO_SHOT)
    if teacher is not None and teacher.average is not None:
        text += f"; the zero-shot teacher reaches {_with_error(teacher.average.accuracy)}"
    return f"{text}. {_cost(row)}"


def _cost(row: Row) -> str:
    if row.expense is None or not row.expense.image_queries:
        return ""
    price = "free of charge" if not row.expense.cost else f"worth {money(row.expense.cost, row.expense.currency)}"
    return f"One run needs {count(row.expense.image_queries)} image queries, {price}."


def _tiles(results: GridResults) -> list[Tile]:
    tiles, row, teacher = [], _leading(results), results.row(ZERO_SHOT)
    if row is not None and row.average is not None:
        tiles.append(Tile(f"{row.title}, unseen", _with_error(row.average.accuracy), "mean and standard error"))
        base, against = results.row(results.baseline or ""), row.against
        if against is not None and base is not None:
            p = "" if math.isnan(against.p) else f", p {'< 0.001' if against.p < 0.001 else f'= {against.p:.3f}'}"
            gap = against.spread.percent
            tiles.append(Tile(f"Compared with {base.title}", _signed(gap.mean), f"points, {gap.count} pairs{p}"))
    if teacher is not None and teacher.average is not None:
        tiles.append(Tile("Zero-shot teacher", _with_error(teacher.average.accuracy), "on unseen domains"))
    if row is not None and row.expense is not None:
        amount = "free of charge" if not row.expense.cost else money(row.expense.cost, row.expense.currency)
        tiles.append(Tile("Image queries", count(row.expense.image_queries), f"per run, {amount}"))
    tiles.append(Tile("Jobs", count(results.finished), f"finished, {duration(results.seconds)} in all"))
    return tiles


def _accuracy(results: GridResults) -> Section:
    many = len(results.table.seeds) > 1
    bars = "Lines: standard error of the mean over seeds" if many else "A single seed, so there is no standard error"
    caption = f"Top-1 accuracy on targets that were held out of training. Diamonds: zero-shot teacher. {bars}."
    figure = Figure(target_panels(results), caption, [table_sheet(results)])
    return Section("accuracy", "Accuracy by target", (), [figure])


def _pairs(results: GridResults) -> Section:
    name, title = "differences", "Paired differences"
    if results.baseline is None:
        why = "Paired differences require ERM and another method in the grid."
        return Section(name, title, missing=[why])
    caption = (
        "Small dots: one target and seed, with both methods on the same split. Each row of dots is one target. Large "
        "dots: their mean and its standard error. Dots of the same target are not independent of each other."
    )
    return Section(name, title, (), [Figure([difference_panel(results)], caption, [pair_sheet(results)])])


def _expense(results: GridResults) -> Section:
    name, title = "expense", "In-domain accuracy, queries, cost, time"
    rows = [row for row in results.table.rows if row.average and row.method != ZERO_SHOT]
    expenses = [row.expense for row in rows if row.expense]
    if not expenses:
        return Section(name, title, missing=["No method has finished runs on all targets yet."])
    panels = [trade_panel(results)]
    if any(expense.image_queries for expense in expenses):
        panels.append(expense_panel(results, "queries", "Queries", "image queries per run", lambda e: e.image_queries))
    charged = any(expense.cost for expense in expenses)
    if charged:
        currency = listed(sorted({expense.currency for expense in expenses if expense.currency}))
        panels.append(expense_panel(results, "money", "Cost", f"{currency} per run", lambda e: float(e.cost)))
    panels.append(expense_panel(results, "time", "Time", "hours per run", lambda e: e.hours))
    charge_note = "" if charged else "Nothing was charged. "
    caption = (
        f"Means over targets. Lines: standard error over seeds. {charge_note}Queries, cost and time are means per run "
        "with an empty store."
    )
    return Section(name, title, (), [Figure(panels, caption, [table_sheet(results)])])


def _reliability(results: GridResults) -> Section:
    name, title = "reliability", "Reliability"
    if not results.reliability:
        return Section(name, title, missing=["No job has saved predictions."])
    caption = (
        "Predictions of all runs on their targets, without temperature scaling. On the dotted line, confidence equals "
        "accuracy. Below it, the student is overconfident."
    )
    return Section(name, title, (), [Figure([reliability_panel(results)], caption, [reliability_sheet(results)])])


def _jobs(results: GridResults, out: Path | None) -> Section:
    jobs = sorted(results.jobs.items(), key=lambda item: item[1].name)
    links = [
        (job.describe(), quote(Path(os.path.relpath(folder / "report.html", out or results.folder)).as_posix()))
        for folder, job in jobs
        if (folder / "report.html").is_file()
    ]
    lacking = len(jobs) - len(links)
    missing = []
    if lacking:
        example = jobs[0][0].relative_to(results.folder).as_posix()
        missing.append(f"{lacking} of these {len(jobs)} runs have no report. To create one: vl2v report {example}")
    text = [f"The table is based on {len(jobs)} runs, selected by accuracy on validation images of source domains."]
    return Section("jobs", "Runs", text, (), missing, links=links)
