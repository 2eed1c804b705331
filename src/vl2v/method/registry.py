"""Registry of methods by name: those of vl2v and those of other installed packages.

A method is one file and one line here. Another package adds a method with an entry point in the group
``vl2v.methods``. A method is imported at its first use, so the command line can list the names quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vl2v.plugins import Plugins

if TYPE_CHECKING:
    from vl2v.method.base import Method

BUILT_IN = {
    "adip": "vl2v.method.adip:ADIP",
    "vl2v": "vl2v.method.recipe:VL2V",
    "no-align": "vl2v.method.baselines.dual:NO_ALIGN",
    "feature": "vl2v.method.baselines.dual:FEATURE",
    "text": "vl2v.method.baselines.dual:TEXT",
    "erm": "vl2v.method.baselines.erm:ERM",
    "linear-probe": "vl2v.method.baselines.linear_probe:LINEAR_PROBE",
    "lp-ft": "vl2v.method.baselines.lp_ft:LP_FT",
    "kd": "vl2v.method.baselines.kd:KD",
    "rise": "vl2v.method.baselines.rise:RISE",
    "miro": "vl2v.method.baselines.miro:MIRO",
}


def _usable(name: str, method: object) -> bool:
    from vl2v.method.base import Method

    return isinstance(method, Method) and method.name == name


METHODS: Plugins[Method[Any]] = Plugins(
    "vl2v.methods", "method", BUILT_IN, "a vl2v.method.base.Method with the name {name}", _usable
)
