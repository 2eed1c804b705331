"""Parts that several figures share: marks with errors, rows of marks, axes of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from vl2v.reports.drawing import INK, PAPER

LONGEST = 20  # characters of a name next to a figure
PERCENT = PercentFormatter(1, decimals=0)


def mark(
    axes: Axes,
    x: float,
    y: float,
    colour: str,
    marker: str,
    *,
    across: Sequence[float] = (math.nan, math.nan),
    up: Sequence[float] = (math.nan, math.nan),
    size: float = 7.5,
) -> None:
    """Draw a mark and the lines of its errors.

    Args:
        across: ends of the horizontal line; NaN draws none.
        up: ends of the vertical line.
        size: size of the mark in points.
    """
    for ends in ((across, (y, y)), ((x, x), up)):
        axes.plot(*ends, color=colour, linewidth=1.8, alpha=0.75, solid_capstyle="round")
    axes.plot([x], [y], marker, color=colour, markersize=size, markeredgecolor=PAPER, markeredgewidth=0.8)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name rows of marks, from the bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def share_axes(axes: Axes, across: str, up: str) -> None:
    """Format axes of two shares: percent, a grid and a legend."""
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xlim(0, 1.02)
    axes.grid()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if len(axes.get_legend_handles_labels()[1]) <= 8:
        axes.legend(frameon=False, fontsize=9, loc="upper left", handlelength=1.6, borderaxespad=0.2)
