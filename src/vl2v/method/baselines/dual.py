"""Ablations of VL2V-ADiP: without Align, and with one of the two terms of the loss.

The ablations of arXiv 2310.08255: distillation from the image embeddings alone (lambda = 1), from the class texts alone
(lambda = 0), and from both with a projection that has not been aligned.
"""

from __future__ import annotations

from dataclasses import replace

from vl2v.method.adip import ADIP

_PART = replace(ADIP, free_image_weight=False)
FEATURE = replace(
    _PART, name="feature", title="image embeddings only", image_weight=1.0, partial_queries=False
)  # fmt: skip
TEXT = replace(
    _PART, name="text", title="class texts only", image_weight=0.0, queries_teacher=False, needs_labels=True,
    partial_queries=False,
)  # fmt: skip
NO_ALIGN = replace(
    _PART,
    name="no-align",
    title="VL2V without Align",
    first_stage=False,
    forbids_first_stage=True,
    supports_encoder=False,
)
