"""Learning curves of both stages, and the window over which SWAD averaged the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vl2v.evaluation.reference import LABELS, Reference
from vl2v.reports.sheet import Sheet

ALIGN, DISTILL = "align", "distill"


@dataclass(frozen=True)
class StageCurve:
    """Learning curve of one stage.

    Attributes:
        stage: ``align`` or ``distill``, the first or the second stage of any method.
        losses: training loss of every step from 0.
        validation_loss: mean over source domains at these steps.
        accuracy: accuracy in [0, 1] at these steps, by source domain.
        window: first and last step that SWAD averaged. None if SWAD was off or had not converged.
        averaged: whether SWAD was on.
    """

    stage: str
    losses: tuple[float, ...]
    steps: tuple[int, ...]
    validation_loss: tuple[float, ...]
    accuracy: Mapping[str, tuple[float, ...]]
    window: tuple[int, int] | None
    averaged: bool


def learning_curves(metrics: Sequence[Mapping[str, Any]], swad: Mapping[str, Any] | None) -> tuple[StageCurve, ...]:
    """Return the curves of the stages that have at least one line.

    Args:
        swad: ``converged_at`` and ``dead_at`` of the second stage from the provenance. None without SWAD.
    """
    curves = []
    for stage in (ALIGN, DISTILL):
        lines = [line for line in metrics if line["stage"] == stage]
        if not lines:
            continue
        last = lines[-1] if "converged_at" in lines[-1] else None
        state = swad if stage == DISTILL and swad else last
        domains = list(lines[0]["domains"])
        curves.append(
            StageCurve(
                stage,
                tuple(loss for line in lines for loss in line["losses"]),
                tuple(int(line["step"]) for line in lines),
                tuple(line["val_loss"] for line in lines),
                {d: tuple(_share(line["domains"][d]) for line in lines) for d in domains},
                _window(state, int(lines[-1]["step"])),
                state is not None,
            )
        )
    return tuple(curves)


def _share(score: Mapping[str, Any]) -> float:
    """Return the accuracy on a domain, or the agreement with the teacher in a run without labels."""
    share: float = score["accuracy"] if score.get("accuracy") is not None else score["agreement"]
    return share


def _window(state: Mapping[str, Any] | None, last: int) -> tuple[int, int] | None:
    if not state or state.get("converged_at") is None:
        return None
    dead = state.get("dead_at")
    return int(state["converged_at"]), last if dead is None else int(dead)


def smoothed(values: Sequence[float], points: int = 40) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a running mean of the same length. At the ends, the window is shorter."""
    width = max(1, len(values) // points)
    kernel = np.ones(width)
    sums = np.convolve(values, kernel, "same")
    counts: np.ndarray[Any, np.dtype[np.float64]] = np.convolve(np.ones(len(values)), kernel, "same")
    return sums / counts


def loss_sheet(curves: Sequence[StageCurve]) -> Sheet:
    """Return the training loss of every step."""
    rows = [(curve.stage, step, loss) for curve in curves for step, loss in enumerate(curve.losses)]
    return Sheet("training_loss", ("stage", "step", "loss"), rows)


def validation_sheet(curves: Sequence[StageCurve], reference: Reference = LABELS) -> Sheet:
    """Return validation loss, accuracy by domain, and whether the step is in the window of SWAD."""
    domains = list(dict.fromkeys(domain for curve in curves for domain in curve.accuracy))
    rows = []
    for curve in curves:
        for i, step in enumerate(curve.steps):
            inside = curve.window is not None and curve.window[0] <= step <= curve.window[1]
            of_domains = (curve.accuracy[d][i] if d in curve.accuracy else None for d in domains)
            rows.append((curve.stage, step, curve.validation_loss[i], int(inside), *of_domains))
    columns = ("stage", "step", "validation_loss", "in_swad_window", *(f"{reference.key} {d}" for d in domains))
    return Sheet("validation", columns, rows)
