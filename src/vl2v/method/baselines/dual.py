"""VL2V-ADiP with one part left out: what Align and each of the two terms of its loss are worth.

The ablations of arXiv 2310.08255: feature distillation from image vectors alone (lambda = 1), from the texts of the
classes alone (lambda = 0), and both terms against a projection that was never aligned.
"""

from __future__ import annotations

from dataclasses import replace

from vl2v.method.adip import ADIP

FEATURE = replace(ADIP, name="feature", image_weight=1.0)
TEXT = replace(ADIP, name="text", image_weight=0.0, asks_teacher=False, needs_labels=True)
NO_ALIGN = replace(ADIP, name="no-align", first_stage=False, forbids_first_stage=True, takes_encoder=False)
