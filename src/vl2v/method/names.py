"""Every method's name in a run's settings, and its title in a table; light, for the command line's help."""

from __future__ import annotations

from typing import Literal

MethodName = Literal[
    "adip", "vl2v", "no-align", "feature", "text", "erm", "linear-probe", "lp-ft", "kd", "rise", "miro"
]  # fmt: skip

TITLES: dict[MethodName, str] = {
    "adip": "VL2V-ADiP",
    "vl2v": "VL2V recipe",
    "no-align": "VL2V without Align",
    "feature": "image vectors only",
    "text": "class texts only",
    "erm": "ERM",
    "linear-probe": "linear probe",
    "lp-ft": "LP-FT",
    "kd": "naive distillation",
    "rise": "RISE",
    "miro": "MIRO",
}
