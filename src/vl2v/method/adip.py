"""VL2V-ADiP: Align, Distill, Predict (arXiv 2310.08255)."""

from __future__ import annotations

from vl2v.method.base import Method, NoSettings
from vl2v.method.loss import dual_terms

ADIP = Method(
    name="adip",
    title="VL2V-ADiP",
    settings=NoSettings,
    stages=("Align", "Distill"),
    classifier="cosine",
    objective=lambda context: dual_terms(context.image_weight),
    first_stage=True,
    trains_layer=False,
    queries_teacher=True,
    needs_labels=False,
    free_image_weight=True,
)
