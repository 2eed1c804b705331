"""Metrics that a run writes during and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vl2v.evaluation.evaluation import Evaluation
from vl2v.evaluation.reference import LABELS, Reference
from vl2v.evaluation.unseen import UnseenClasses
from vl2v.method.evaluation import Score, mean_over_domains
from vl2v.method.swad import LossValley
from vl2v.origin import ORIGIN


def metrics_line(
    stage: str,
    step: int,
    losses: Sequence[float],
    scores: Mapping[str, Score],
    learning_rate: float | None,
    average: object = None,
    reference: Reference = LABELS,
    parts: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return one line of `metrics.jsonl`.

    Args:
        stage: ``align`` or ``distill``.
        step: step of the stage, from 0.
        losses: training losses of the steps since the previous line.
        scores: scores by source domain on its validation images.
        learning_rate: learning rate of the step; None if the stage is solved in closed form.
        average: the weight averaging of SWAD, if it is used.
        reference: what predictions are compared with. It names the accuracies.
        parts: sum of each named part of the loss over these steps. The line contains their means.
    """
    key = reference.key
    mean = mean_over_domains(scores.values())
    line: dict[str, Any] = {"stage": stage, "step": step, "losses": list(losses)}
    line |= {"parts": {name: value / len(losses) for name, value in parts.items()}} if parts else {}
    line |= {} if learning_rate is None else {"learning_rate": learning_rate}
    line |= {"val_loss": mean.loss, f"val_{key}": mean.accuracy, "val_macro": mean.macro}
    line["domains"] = {d: {"loss": s.loss, key: s.accuracy, "macro": s.macro} for d, s in scores.items()}
    if isinstance(average, LossValley):
        line |= {"converged_at": average.converged_at, "dead_at": average.dead_at, "threshold": average.threshold}
    return line


def results_of(
    evaluation: Evaluation,
    unseen: UnseenClasses | None,
    usage: Mapping[str, Any],
    warnings: Sequence[str],
    fresh_queries: int | None,
    advice: Mapping[str, Any] | None = None,
    origin: str = "",
) -> dict[str, Any]:
    """Return the content of `evaluation.json`.

    Args:
        unseen: results on the held-out classes; None if there are none.
        usage: the queries that training needs, saved under the key ``asked``.
        fresh_queries: number of augmented images sent to a local teacher; None without fresh views.
        advice: whether the teacher is worth its price; None or empty if there is no advice.
        origin: that of the student, see `vl2v.origin`; empty if it is not known.
    """
    content = evaluation.to_dict()
    content |= {} if unseen is None else {"unseen_classes": unseen.to_dict()}
    content |= {ORIGIN: origin} if origin else {}
    content |= {"advice": dict(advice)} if advice else {}
    content |= {"asked": dict(usage), "warnings": list(warnings)}
    return content | ({} if fresh_queries is None else {"fresh_queries": fresh_queries})


def summary_of(evaluation: Evaluation, usage: Mapping[str, Any], query_counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the final results of a run as numbers by name, for trackers.

    Args:
        usage: the queries that training needs, see `vl2v.planning.plan.RunPlan.teacher_usage`.
        query_counts: number of queries that this run paid for, by kind.
    """
    summary: dict[str, Any] = {}
    key = evaluation.reference.key
    for row in evaluation.rows:
        prefix = f"final/{row.role}/{row.domain}"
        figures = {key: row.student, "zero_shot_accuracy": row.zero_shot, "calibration_error": row.student_ece}
        figures |= {f"macro_{key}": row.student_macro, "zero_shot_macro_accuracy": row.zero_shot_macro}
        summary |= {f"{prefix}/{name}": value for name, value in figures.items() if value is not None}
    for role, means in evaluation.to_dict()["means"].items():
        summary |= {f"final/{role}/mean/{name}": value for name, value in means.items() if value is not None}
    return summary | {f"asked/{k}": v for k, v in usage.items()} | {f"paid/{k}": v for k, v in query_counts.items()}
