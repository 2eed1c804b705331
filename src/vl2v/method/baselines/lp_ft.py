"""LP-FT: a linear probe, followed by fine-tuning.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022
(arXiv 2202.10054). It is ERM with a first stage.
"""

from __future__ import annotations

from dataclasses import replace

from vl2v.method.baselines.erm import ERM

LP_FT = replace(ERM, name="lp-ft", title="LP-FT", first_stage=True)
