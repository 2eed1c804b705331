"""VL2V-ADiP: Align, Distill, Predict (arXiv 2310.08255)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vl2v.method.base import Context, Method, NoSettings

if TYPE_CHECKING:
    from vl2v.method.loop import Objective


def _objective(context: Context[NoSettings]) -> Objective:
    from vl2v.method.loss import dual_terms

    return dual_terms(context.image_weight)


ADIP = Method(
    name="adip",
    title="VL2V-ADiP",
    settings=NoSettings,
    stages=("Align", "Distill"),
    classifier="cosine",
    objective=_objective,
    first_stage=True,
    trains_layer=False,
    queries_teacher=True,
    needs_labels=False,
    partial_queries=True,
    free_image_weight=True,
)
