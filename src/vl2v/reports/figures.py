"""The figures of a run's report, panel by panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vl2v.analysis.intervals import share_of
from vl2v.evaluation.evaluation import OUT_OF_DOMAIN, TEST, DomainScore
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.formatting import listed, percent, shortened
from vl2v.reports.axes import LONGEST, PERCENT, mark, name_rows, share_axes
from vl2v.reports.calibration import Calibration, Rejection
from vl2v.reports.drawing import CLASS_COLOURS, INK, PAPER, SHADE, SOFT, STRONG, STUDENT, TEACHER, Panel, panel
from vl2v.reports.learning import StageCurve, smoothed
from vl2v.reports.mistakes import MANY, Confusion
from vl2v.reports.source import ROLE_NAMES
from vl2v.trust.calibration import Reliability
from vl2v.trust.rejection import Threshold

LINES = ("-", "--", ":", "-.")
MIN_ERROR = 0.05  # upper end of the axis of error rates, at least
LABEL = 0.065, 0.07  # width and height of a label such as 95%, as shares of the axes
SUFFIXES = {TEST: " (test)", OUT_OF_DOMAIN: " *"}  # of the names of domains


def accuracy_panel(domains: Sequence[DomainScore], reference: Reference = LABELS) -> Panel:
    """Draw the accuracy of student and teacher on every domain with its interval."""
    ordered = list(reversed(domains))
    names = [shortened(f.domain, LONGEST) + SUFFIXES.get(f.role, "") for f in ordered]

    def draw(axes: Axes) -> None:
        for y, f in enumerate(ordered):
            if f.role == OUT_OF_DOMAIN:
                axes.axhspan(y - 0.5, y + 0.5, color=SHADE, alpha=0.09, linewidth=0)
            for accuracy, shift, colour, marker in (
                (f.student, 0.13, STUDENT, "o"),
                (f.zero_shot, -0.13, TEACHER, "D"),
            ):
                if accuracy is not None:
                    share, at = share_of(accuracy, f.images), y + (0 if f.zero_shot is None else shift)
                    mark(axes, share.value, at, colour, marker, across=(share.low, share.high), size=6.5)
        name_rows(axes, names)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set_xlabel(reference.measure)

    summary = "; ".join(
        f"{f.domain}: student {percent(f.student)}"
        + ("" if f.zero_shot is None else f", teacher {percent(f.zero_shot)}")
        for f in domains
    )
    alt = f"{reference.key.capitalize()} by domain. {summary}."
    return panel(reference.key, "", alt, draw, height=max(1.6, 0.55 + 0.42 * len(domains)))


def learning_panels(
    curves: Sequence[StageCurve], titles: Sequence[str], reference: Reference = LABELS
) -> tuple[Panel, ...]:
    """Draw loss and validation accuracy of every stage."""
    panels = []
    for curve, title in zip(curves, titles, strict=True):
        panels.append(_loss_panel(curve, title))
        panels.append(_validation_panel(curve, title, reference.key))
    return tuple(panels)


def _loss_panel(curve: StageCurve, title: str) -> Panel:
    def draw(axes: Axes) -> None:
        _shade(axes, curve)
        values = np.asarray(curve.losses)
        few = max(1, len(values) // 600)  # more points than pixels only make the page larger
        axes.plot(np.arange(len(values))[::few], values[::few], color=SOFT, alpha=0.35, linewidth=0.7)
        axes.plot(np.arange(len(values))[::few], smoothed(curve.losses)[::few], color=STUDENT)
        _steps(axes)
        axes.set_ylabel("training loss")

    ends = f"from {curve.losses[0]:.3f} to {float(np.mean(curve.losses[-20:])):.3f}"
    alt = f"Training loss of {title} over {len(curve.losses)} steps, {ends}.{_window_text(curve)}"
    return panel(f"loss-{curve.stage}", f"{title}: training loss", alt, draw)


def _validation_panel(curve: StageCurve, title: str, key: str) -> Panel:
    def draw(axes: Axes) -> None:
        _shade(axes, curve)
        for i, (domain, values) in enumerate(curve.accuracy.items()):
            axes.plot(
                curve.steps,
                100 * np.asarray(values),
                color=CLASS_COLOURS[i % 8],
                linestyle=LINES[(i // 8) % 4],
                marker="o" if len(values) <= 25 else "",
                markersize=3.5,
                label=shortened(domain, LONGEST),
            )
        _steps(axes)
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(100, decimals=0))
        axes.set_ylim(top=min(axes.get_ylim()[1], 101))
        axes.set_ylabel(f"validation {key}")
        if len(curve.accuracy) <= 10:
            axes.legend(frameon=False, fontsize=9, loc="best", handlelength=1.6, borderaxespad=0.3)

    last = ", ".join(f"{domain} {percent(values[-1])}" for domain, values in curve.accuracy.items())
    alt = f"Validation {key} by source domain in {title}; at the end {last}.{_window_text(curve)}"
    return panel(f"validation-{curve.stage}", f"{title}: validation {key}", alt, draw)


def _shade(axes: Axes, curve: StageCurve) -> None:
    if curve.window:
        axes.axvspan(*curve.window, color=SHADE, alpha=0.13, linewidth=0)


def _window_text(curve: StageCurve) -> str:
    return " SWAD averaged steps {} to {}.".format(*curve.window) if curve.window else ""


def _steps(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y")


def confusion_panel(matrix: Confusion, reference: Reference = LABELS) -> Panel:
    """Draw a confusion matrix. Rows are true classes and sum to 1. With few classes, cells show the counts."""
    shares, count = matrix.shares, len(matrix.classes)
    readable = count <= MANY
    images, names = int(matrix.counts.sum()), [shortened(name, 16) for name in matrix.classes]

    def draw(axes: Axes) -> None:
        if readable:
            for t, a in np.argwhere(matrix.counts):
                axes.fill(
                    *_cell(t, a), color=STUDENT if t == a else TEACHER, alpha=0.06 + 0.69 * shares[t, a], linewidth=0
                )
                if count <= 12:
                    strong = shares[t, a] > 0.8
                    text = f"{matrix.counts[t, a]:,}"
                    axes.text(a, t, text, ha="center", va="center", fontsize=8.5, color=STRONG if strong else INK)
            axes.set_xticks(range(count), names, rotation=90 if count > 5 else 0)
            axes.set_yticks(range(count), names)
        else:
            ink = np.zeros((count, count, 4))
            ink[..., :3] = 0.16, 0.55, 0.83  # a bitmap has no CSS variables; this colour suits both backgrounds
            ink[..., 3] = np.sqrt(shares)  # makes rare mistakes visible
            axes.imshow(ink, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.tick_params(length=0, labelcolor=INK, labelsize=9 if count <= 12 else 6.5)
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_xlabel("predicted")
        axes.set_ylabel(reference.true)

    worst = [f"{p.true} predicted as {p.taken_for} {p.count} times" for p in matrix.pairs(3)]
    right = percent(float(np.diag(matrix.counts).sum() / max(images, 1)))
    summary = f"{right} of {images} {reference.equal}; {listed(worst) or 'no mistakes'}"
    alt = f"Confusion matrix, {ROLE_NAMES[matrix.role]}: {summary}."
    title = f"{ROLE_NAMES[matrix.role].capitalize()}, {images:,} images"
    return panel(f"confusion-{matrix.role}", title, alt, draw, height=4.3)


def _cell(t: int, a: int) -> tuple[list[float], list[float]]:
    return [a - 0.48, a + 0.48, a + 0.48, a - 0.48], [t - 0.48, t - 0.48, t + 0.48, t + 0.48]


def reliability_panel(calibration: Calibration, temperature: float, reference: Reference = LABELS) -> Panel:
    """Draw accuracy by confidence before and after temperature scaling. On the diagonal, both are equal."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":")
        _reliability(axes, calibration.before, TEACHER, "D", "as trained")
        _reliability(axes, calibration.after, STUDENT, "o", f"temperature {temperature:.2f}")
        axes.set_ylim(0, 1.03)
        share_axes(axes, "confidence", reference.key)

    errors = f"{percent(calibration.before.error)} before, {percent(calibration.after.error)} after"
    alt = f"Reliability, {ROLE_NAMES[calibration.role]}: expected calibration error {errors} the temperature."
    title = f"{ROLE_NAMES[calibration.role].capitalize()}: ECE {errors}"
    return panel(f"reliability-{calibration.role}", title, alt, draw, height=3.5)


def _reliability(axes: Axes, table: Reliability, colour: str, marker: str, label: str) -> None:
    filled = np.flatnonzero(table.count)
    sizes = 12 + 110 * table.count[filled] / max(int(table.count.sum()), 1)
    x, y = table.confidence[filled], table.accuracy[filled]
    axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.8)
    axes.scatter(x, y, s=sizes, marker=marker, color=colour, edgecolors=PAPER, linewidths=0.6, zorder=3)
    axes.plot([], [], marker, color=colour, markersize=6, label=label)


def rejection_panel(results: Sequence[Rejection], coverages: Sequence[float], reference: Reference = LABELS) -> Panel:
    """Draw the error rate against coverage, with the thresholds of the student."""

    def marked(f: Rejection) -> list[Threshold]:
        return [t for t in f.thresholds if t.target in coverages and t.coverage]

    def draw(axes: Axes) -> None:
        for f, colour, marker in zip(results, (STUDENT, TEACHER), ("o", "D"), strict=False):
            few = max(1, len(f.curve.coverage) // 500)
            points = np.r_[0 : len(f.curve.coverage) : few, len(f.curve.coverage) - 1]
            axes.plot(f.curve.coverage[points], f.curve.risk[points], color=colour, label=ROLE_NAMES[f.role])
            for t in marked(f):
                axes.plot([t.coverage], [t.risk], marker, color=colour, markersize=6, markeredgecolor=PAPER)
        # With a handful of predictions, one mistake changes the rate too much.
        steady = [f.curve.risk[f.curve.coverage >= 0.05] for f in results]
        axes.set_ylim(0, top := 1.12 * max(MIN_ERROR, *(float(risk.max()) for risk in steady)))
        for group in joined(marked(results[0]), top):
            text = ", ".join(f"{100 * t.target:.0f}" for t in reversed(group)) + "%"
            offset: Any = {"xytext": (-2, 7), "textcoords": "offset points"}
            place = group[0].coverage, max(t.risk for t in group)
            axes.annotate(text, place, **offset, ha="right", fontsize=8, color=SOFT)
        share_axes(axes, "coverage, the most confident first", f"{reference.other} among them")

    ends = listed([f"{percent(float(f.curve.risk[-1]))} {ROLE_NAMES[f.role]}" for f in results])
    alt = f"Predictions {reference.other} against coverage; at full coverage {ends}."
    return panel("refusal", "Rejecting the least confident predictions", alt, draw, height=3.5)


def joined(marks: Sequence[Threshold], top: float) -> list[list[Threshold]]:
    """Return thresholds in groups that share a label, since labels of their own would overlap; from high coverage down.

    Args:
        top: upper end of the axis of error rates, which starts at 0; that of coverages is from 0 to 1.
    """
    width, height = LABEL
    groups: list[list[Threshold]] = []
    for t in sorted(marks, key=lambda t: t.coverage, reverse=True):
        last = groups[-1] if groups else [t]
        near = last[0].coverage - t.coverage < width * len(last)
        if groups and near and abs(max(other.risk for other in last) - t.risk) < height * top:
            last.append(t)
        else:
            groups.append([t])
    return groups
