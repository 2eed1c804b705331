"""Every method by its name in a run's settings."""

from __future__ import annotations

from vl2v.method.adip import ADIP
from vl2v.method.base import Method
from vl2v.method.baselines.erm import ERM
from vl2v.method.baselines.kd import KD

METHODS: dict[str, Method] = {method.name: method for method in (ADIP, ERM, KD)}
