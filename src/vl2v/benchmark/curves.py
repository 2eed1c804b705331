"""Plots of accuracy on unseen domains against image queries or labels per class."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from vl2v.benchmark.selection import RULES
from vl2v.benchmark.statistics import Spread
from vl2v.benchmark.tables import ORACLE_MARK, PUBLISHED_MARK, Table
from vl2v.config import DEFAULT_METHOD
from vl2v.errors import ConfigError
from vl2v.method.registry import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The palette of Okabe and Ito, which is safe for colour blindness, without its yellow, which is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")
WIDE = 8  # ratio of the largest to the smallest x from which the axis is logarithmic


@dataclass(frozen=True)
class Point:
    """The point of one method.

    Attributes:
        x: image queries or labels.
        accuracy: out-of-domain accuracy, averaged over target domains, with its standard error over seeds.
    """

    x: float
    method: str
    accuracy: Spread
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """The content of a figure.

    Attributes:
        x_name: label of the horizontal axis, with its unit.
        lines: points by the name of the line, in ascending order of x.
        references: accuracies drawn as horizontal lines, by name.
        caption: seeds and model selection.
    """

    title: str
    x_name: str
    lines: Mapping[str, tuple[Point, ...]]
    references: Mapping[str, Spread]
    caption: str

    @classmethod
    def of(
        cls,
        table: Table,
        x_name: str = "image queries of one run",
        *,
        x: Mapping[str, float] | None = None,
        line: Mapping[str, str] | None = None,
        references: Sequence[str] = (),
    ) -> Curve:
        """Create a curve from a table. Published and unfinished rows and rows without an x have no point.

        Args:
            table: table with one choice of weights, from `vl2v.benchmark.tabulate.tabulate`.
            x_name: label of the horizontal axis.
            x: x by label of the method, e.g. labels per class; None uses the mean image queries of one run.
            line: name of the line by label of the method; None puts all methods on one line.
            references: labels of methods to draw as horizontal lines, e.g. the teacher and ERM.

        Raises:
            ConfigError: if no method has both an x and a finished average, or the table has several rows per method.
        """
        if len(table.weights) > 1:
            expected, step = "one choice of weights", "plot one curve for each"
            raise ConfigError("The curve is ambiguous.", expected=expected, found=str(table.weights), next_step=step)
        lines: dict[str, list[Point]] = {}
        levels = {}
        for row in table.rows:
            accuracy, bought = row.accuracy(), row.expense.image_queries if row.expense else None
            value = bought if x is None else x.get(row.method)
            if accuracy is None or PUBLISHED_MARK in row.marks:
                continue
            if row.method in references:
                levels[row.title] = accuracy
            elif value is not None:
                name = (line or {}).get(row.method, "student")
                lines.setdefault(name, []).append(Point(value, row.method, accuracy, row.marks))
        if not lines:
            raise ConfigError(
                "The curve has no points.",
                expected="a method with an x and a finished run on every target",
                found=", ".join(row.method for row in table.rows) or "no method",
                next_step="finish the grid, or provide x values for these methods",
            )
        ordered = {name: tuple(sorted(points, key=lambda p: (p.x, p.method))) for name, points in sorted(lines.items())}
        return cls(f"{table.benchmark}: accuracy on unseen domains", x_name, ordered, levels, _caption(table))

    def csv(self) -> str:
        """Return CSV with one row per point: accuracies in [0, 1], in full precision; x is empty for references."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("line", "method", "x", "accuracy", "accuracy_se", "seeds", "marks"))
        for name, points in self.lines.items():
            for p in points:
                writer.writerow((name, p.method, repr(p.x), *_numbers(p.accuracy), " ".join(p.marks)))
        for name, level in self.references.items():
            writer.writerow((name, "", "", *_numbers(level), ""))
        return text.getvalue()

    def figure(self) -> Figure:
        """Draw the curve as a matplotlib figure."""
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.add_subplot()
        labels = [*_draw_lines(axes, self.lines), *_draw_levels(axes, self.references)]
        _scale(axes, [p.x for points in self.lines.values() for p in points])
        _label(axes, labels)
        axes.set_xlabel(self.x_name)
        axes.set_ylabel("accuracy on unseen domains, percent")
        oracle = any(ORACLE_MARK in p.marks for points in self.lines.values() for p in points)
        axes.set_title(self.title + (" (oracle)" if oracle else ""), loc="left", fontweight="bold", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.supxlabel(self.caption, fontsize=8, color="#555555", x=0.01, ha="left")
        return figure

    def save(self, path: Path) -> None:
        """Save the figure in the format of the file extension. The same content gives the same SVG.

        Raises:
            ConfigError: if the extension is not one of `FORMATS`.
        """
        if path.suffix not in FORMATS:
            expected, step = ", ".join(FORMATS), "use one of these suffixes"
            raise ConfigError("Unknown figure format.", expected=expected, found=str(path), next_step=step)
        figure = self.figure()
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
        with rc_context({"svg.hashsalt": "vl2v", "svg.fonttype": "none"}):
            figure.savefig(path, dpi=160, metadata=metadata)


def line_names(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the name of each row's line: its method, and whether it uses fresh views or unlabelled images."""
    names = {}
    for label, s in settings.items():
        teacher, data = s.get("teacher") or {}, s.get("data") or {}
        fresh = teacher.get("views") == "fresh"
        unlabelled = data.get("rest_unlabelled") or data.get("unlabelled") is not None
        title = METHODS[s.get("method", DEFAULT_METHOD)].title
        names[label] = title + ", fresh views" * fresh + ", unlabelled too" * unlabelled
    return names


def _caption(table: Table) -> str:
    many = len(table.seeds)
    bars = f"bars: standard error over {many} seeds" if many > 1 else "a single seed"
    return f"Mean over {len(table.targets)} targets; {bars}. Selection: {RULES[table.rule]}."


def _numbers(spread: Spread) -> tuple[str, str, int]:
    return repr(spread.mean), "" if math.isnan(spread.error) else repr(spread.error), spread.count


Label = tuple[float, str, str]  # height in percent, text, colour


def _draw_lines(axes: Axes, lines: Mapping[str, Sequence[Point]]) -> list[Label]:
    labels = []
    for i, (name, points) in enumerate(lines.items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        xs, heights = [p.x for p in points], [100 * p.accuracy.mean for p in points]
        errors = [0.0 if math.isnan(p.accuracy.error) else 100 * p.accuracy.error for p in points]
        axes.errorbar(xs, heights, errors, color=colour, marker=marker, capsize=3, linewidth=1.8, markersize=6)
        labels.append((heights[-1], name, colour))
    return labels


def _draw_levels(axes: Axes, levels: Mapping[str, Spread]) -> list[Label]:
    labels = []
    for i, (name, spread) in enumerate(levels.items()):
        style = ("--", ":", "-.")[i % 3]
        axes.axhline(100 * spread.mean, color="#666666", linestyle=style, linewidth=1.2)
        labels.append((100 * spread.mean, name, "#444444"))
    return labels


def _scale(axes: Axes, xs: Sequence[float]) -> None:
    """Set a logarithmic axis if the values are positive and span a wide range, with ticks at values that have room."""
    values = sorted(set(xs))
    log = values[0] > 0 and values[-1] / values[0] >= WIDE
    if log:
        axes.set_xscale("log")
    along = [math.log(value) if log else value for value in values]
    room = 0.09 * (along[-1] - along[0])
    ticks: list[int] = []
    for i, value in enumerate(along):
        if not ticks or value - along[ticks[-1]] >= room:
            ticks.append(i)
    tick_values = [values[i] for i in ticks]
    axes.set_xticks(tick_values, [f"{value:,.0f}" if value >= 100 else f"{value:g}" for value in tick_values])
    axes.set_xticks([], minor=True)


def _label(axes: Axes, labels: Sequence[Label]) -> None:
    """Write the names at the right edge, moved apart so that they do not overlap."""
    low, high = axes.get_ylim()
    step = 0.05 * (high - low)  # a line of text, of the axis' height
    free = -math.inf
    for height, name, colour in sorted(labels):
        free = max(height, free + step)
        position = (1.01, (free - low) / (high - low))
        axes.annotate(
            name, position, xycoords="axes fraction", va="center", color=colour, fontsize=9, annotation_clip=False
        )
