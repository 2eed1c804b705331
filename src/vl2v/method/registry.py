"""Every method by its name in a run's settings, in the order of `vl2v.method.names`."""

from __future__ import annotations

from vl2v.method.adip import ADIP
from vl2v.method.base import Method
from vl2v.method.baselines.dual import FEATURE, NO_ALIGN, TEXT
from vl2v.method.baselines.erm import ERM
from vl2v.method.baselines.kd import KD
from vl2v.method.baselines.linear_probe import LINEAR_PROBE
from vl2v.method.baselines.lp_ft import LP_FT
from vl2v.method.baselines.miro import MIRO
from vl2v.method.baselines.rise import RISE
from vl2v.method.recipe import VL2V

METHODS: dict[str, Method] = {
    method.name: method
    for method in (ADIP, VL2V, NO_ALIGN, FEATURE, TEXT, ERM, LINEAR_PROBE, LP_FT, KD, RISE, MIRO)
}  # fmt: skip
