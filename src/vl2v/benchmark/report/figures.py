"""The figures of a benchmark's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vl2v.benchmark.report.grid import GridResults, differences
from vl2v.benchmark.results import ZERO_SHOT
from vl2v.benchmark.statistics import Spread
from vl2v.benchmark.tables import Expense, Row
from vl2v.formatting import listed, percent, shortened
from vl2v.reports.axes import LONGEST, PERCENT, mark, name_rows, share_axes
from vl2v.reports.drawing import CLASS_COLOURS, INK, SOFT, Panel, panel

MARKERS = ("o", "s", "^", "v", "P", "X", "*")
Paint = tuple[str, str]  # colour and marker


def paints(rows: Sequence[Row]) -> dict[str, Paint]:
    """Return the colour and marker of every method; the teacher is a diamond in the colour of the text."""
    methods = [row.method for row in rows if row.method != ZERO_SHOT]
    paints_by_method = {m: (CLASS_COLOURS[i % 8], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}
    return {ZERO_SHOT: (INK, "D"), **paints_by_method}


def _title(row: Row) -> str:
    return shortened(row.title, LONGEST + 4)


def target_panels(results: GridResults) -> list[Panel]:
    """Plot the accuracy on every target and on average: one dot with its standard error per method."""
    rows = [row for row in results.table.rows if row.expense]
    return [_dots(f"target-{i}", rows, target) for i, target in enumerate(("", *results.table.targets))]


def _dots(name: str, rows: Sequence[Row], target: str) -> Panel:
    measurements = [(row, spread) for row in reversed(rows) if (spread := row.accuracy(target)) is not None]
    title, paint = target or "Average over targets", paints(rows)

    def draw(axes: Axes) -> None:
        for y, (row, spread) in enumerate(measurements):
            points = spread.percent
            mark(axes, points.mean, y, *paint[row.method], across=points.ends, size=6.5)
        name_rows(axes, [_title(row) for row, _ in measurements])
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))

    accuracies = "; ".join(f"{row.title} {spread}" for row, spread in reversed(measurements))
    return panel(
        name,
        title,
        f"Accuracy on {title}, percent: {accuracies}.",
        draw,
        height=max(1.3, 0.5 + 0.34 * len(measurements)),
    )


def trade_panel(results: GridResults) -> Panel:
    """Plot out-of-domain accuracy against in-domain accuracy."""
    rows = [r for r in results.table.rows if r.expense and r.average and r.average.in_domain]
    paint = paints(results.table.rows)

    def draw(axes: Axes) -> None:
        labels = []
        for row in rows:
            assert row.average is not None
            assert row.average.in_domain is not None
            x, y = row.average.in_domain, row.average.accuracy
            mark(axes, x.mean, y.mean, *paint[row.method], across=x.ends, up=y.ends)
            labels.append((_title(row), x.mean, y))
        _name(axes, labels)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set_xlabel("in-domain accuracy")

    summary = "; ".join(f"{r.title} {r.average.in_domain} and {r.average.accuracy}" for r in rows if r.average)
    alt = f"In-domain and out-of-domain accuracy, percent: {summary}."
    return panel("trade", "In-domain and unseen domains", alt, _framed(draw), height=3.4)


def expense_panel(results: GridResults, name: str, title: str, unit: str, of: Callable[[Expense], float]) -> Panel:
    """Plot accuracy on unseen domains against the queries, cost or time of a run."""
    rows = [r for r in results.table.rows if r.method != ZERO_SHOT]
    points = [(r, of(r.expense), r.average.accuracy) for r in rows if r.expense and r.average]
    paint = paints(results.table.rows)

    def draw(axes: Axes) -> None:
        for row, x, accuracy in points:
            mark(axes, x, accuracy.mean, *paint[row.method], up=accuracy.ends)
        _name(axes, [(_title(row), x, accuracy) for row, x, accuracy in points])
        widest = max(x for _, x, _ in points)
        axes.set_xlim(-0.08 * widest, 1.22 * widest)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(unit)

    summary = "; ".join(f"{r.title} {percent(accuracy.mean)} for {x:,.4g} {unit}" for r, x, accuracy in points)
    return panel(name, title, f"{title}: {summary}.", _framed(draw), height=3.4)


def _framed(draw: Callable[[Axes], None]) -> Callable[[Axes], None]:
    def framed(axes: Axes) -> None:
        axes.margins(0.18)
        draw(axes)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_ylabel("accuracy on unseen domains")
        axes.grid()

    return framed


def _name(axes: Axes, points: Sequence[tuple[str, float, Spread]]) -> None:
    """Label every point above it, or below it if another point is close above."""
    heights = [y.mean for _, _, y in points]
    xs = [x for _, x, _ in points]
    tall, broad = max(heights) - min(heights), max(xs) - min(xs)
    for name, x, y in points:
        error = 0.0 if math.isnan(y.error) else y.error
        above = (h.mean - y.mean for _, other, h in points if abs(x - other) < 0.4 * broad + 1e-9)
        under = any(0 < gap < 0.35 * tall for gap in above)
        at = (x, y.mean - error if under else y.mean + error)
        shift = (0, -8 if under else 7)
        side = "top" if under else "bottom"
        axes.annotate(name, at, xytext=shift, textcoords="offset points", ha="center", va=side, fontsize=9, color=INK)


def difference_panel(results: GridResults) -> Panel:
    """Plot the differences to the baseline per target and seed, and their mean with its standard error."""
    apart = {method: pairs for method, pairs in differences(results).items() if pairs}
    rows = [row for row in reversed(results.table.rows) if row.method in apart]
    base = results.row(results.baseline or "")
    name = base.title if base else ""
    paint, targets = paints(results.table.rows), results.table.targets

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=SOFT, linewidth=1)
        for y, row in enumerate(rows):
            spread = Spread.of(list(apart[row.method].values())).percent
            colour, _ = paint[row.method]
            for target, seed in sorted(apart[row.method]):
                shift = 0.32 * ((targets.index(target) + 0.5) / len(targets) - 0.5) * 2
                value = 100 * apart[row.method][target, seed]
                axes.plot([value], [y + shift], "o", color=colour, markersize=3.6, alpha=0.45, markeredgewidth=0)
            mark(axes, spread.mean, y, *paint[row.method], across=spread.ends)
        name_rows(axes, [_title(row) for row in rows])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0f}".replace("-", "−") if value else "0")
        axes.set_xlabel(f"points above {name}")

    means = [f"{row.title} {100 * float(np.mean(list(apart[row.method].values()))):+.1f} points" for row in rows]
    alt = f"Difference to {name} on unseen domains: {listed(means)}."
    return panel("difference", f"Against {name}, pair by pair", alt, draw, height=max(1.8, 0.7 + 0.62 * len(rows)))


def reliability_panel(results: GridResults) -> Panel:
    """Plot accuracy against confidence on all targets together, without temperature scaling."""
    rows = [row for row in results.table.rows if row.method in results.reliability]
    paint = paints(results.table.rows)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":")
        for row in rows:
            r, (colour, marker) = results.reliability[row.method], paint[row.method]
            filled = np.flatnonzero(r.count)
            x, y = r.confidence[filled], r.accuracy[filled]
            axes.plot(x, y, marker=marker, color=colour, markersize=4.5, linewidth=1.3, label=_title(row))
        axes.set_ylim(0, 1.03)
        share_axes(axes, "confidence", "accuracy")

    errors = [f"{row.title} {percent(results.reliability[row.method].error)}" for row in rows]
    alt = f"Reliability on unseen domains; expected calibration error: {listed(errors)}."
    return panel("reliability", "Reliability on unseen domains", alt, draw, height=3.6)
