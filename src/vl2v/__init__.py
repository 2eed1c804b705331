"""vl2v: distil a pay-per-query vision-language model into your own image classifier for unseen domains.

    import vl2v

    print(vl2v.quote("photos", teacher="open_clip:ViT-B-16/openai").cost)
    run = vl2v.distill(
        "photos", "open_clip:ViT-B-16/openai", "timm:resnet50.tv_in1k", held_out=["sketch"], out="runs/first"
    )
    print(run.evaluation.to_dict())
    print(run.student.predict(["photo.jpg"]))

Names are loaded when they are first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vl2v.renamed import install as _install
from vl2v_runtime import __version__ as __version__

if TYPE_CHECKING:
    from vl2v.api import (
        add_classes,
        distill,
        evaluate,
        export,
        list_classes,
        load,
        quote_classes,
        remove_classes,
        report,
    )
    from vl2v.api_quote import quote
    from vl2v.commands.expect import expect
    from vl2v.commands.label import label
    from vl2v.commands.repair import repair
    from vl2v.commands.repair_plan import plan_repair
    from vl2v.data.folder import DomainFolder
    from vl2v.errors import Vl2vError
    from vl2v.student.model import Student
    from vl2v.teacher.base import Teacher
    from vl2v.teacher.purchase.store import EmbeddingStore
    from vl2v.teacher.registry import open_teacher

_HOMES = {  # of names that are not in vl2v.api
    "expect": "vl2v.commands.expect",
    "label": "vl2v.commands.label",
    "plan_repair": "vl2v.commands.repair_plan",
    "quote": "vl2v.api_quote",
    "repair": "vl2v.commands.repair",
    "DomainFolder": "vl2v.data.folder",
    "EmbeddingStore": "vl2v.teacher.purchase.store",
    "Student": "vl2v.student.model",
    "Teacher": "vl2v.teacher.base",
    "Vl2vError": "vl2v.errors",
    "open_teacher": "vl2v.teacher.registry",
}

__all__ = [
    "DomainFolder",
    "EmbeddingStore",
    "Student",
    "Teacher",
    "Vl2vError",
    "add_classes",
    "distill",
    "evaluate",
    "expect",
    "export",
    "label",
    "list_classes",
    "load",
    "open_teacher",
    "plan_repair",
    "quote",
    "quote_classes",
    "remove_classes",
    "repair",
    "report",
]

_install()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vl2v' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "vl2v.api")), name)
