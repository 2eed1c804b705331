"""Inference with an exported student, without torch.

    import vl2v_runtime

    model = vl2v_runtime.load("model.onnx")
    for answer in model.predict(["a.jpg", "b.jpg"]):
        print(answer.label, answer.confidence)

Names are imported at their first use, so importing the package is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vl2v_runtime.errors import ModelError
    from vl2v_runtime.imaging import UnreadableImageError
    from vl2v_runtime.metadata import Metadata
    from vl2v_runtime.model import Answer, Attempt, Model, load

__version__ = "0.1.0"

_HOMES = {
    "Answer": "vl2v_runtime.model",
    "Attempt": "vl2v_runtime.model",
    "Metadata": "vl2v_runtime.metadata",
    "Model": "vl2v_runtime.model",
    "ModelError": "vl2v_runtime.errors",
    "UnreadableImageError": "vl2v_runtime.imaging",
    "load": "vl2v_runtime.model",
}

__all__ = ["Answer", "Attempt", "Metadata", "Model", "ModelError", "UnreadableImageError", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vl2v_runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
