"""Origin and licence of a student's pretrained weights, as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """Origin and licence of the weights of a backbone.

    Attributes:
        hub_name: name on the hub, or None if it is unknown.
        text: description for the model card, which follows the name of the backbone.
    """

    hub_name: str | None
    text: str


def origin_of(recipe: Mapping[str, Any], spec: str) -> Origin:
    """Return the origin of the pretrained weights.

    Args:
        recipe: the fields of `vl2v.student.backbones.Recipe`.
        spec: specification of the student in the settings of the run, redacted. If the student is the encoder of the
            teacher, that of the teacher.
    """
    if recipe["kind"] == "open_clip":
        name = str(recipe["name"])  # earlier versions stored the hub name, later ones store the built-in architecture
        name = name if name.startswith("hf-hub:") else spec.removeprefix("open_clip:")
        hub = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else None
        return Origin(hub, "the image encoder of its open_clip teacher, whose licence applies to the weights.")
    if recipe["kind"] != "timm":
        return Origin(None, "a custom module; its weights and their licence are unknown.")
    if "@" in spec:
        return Origin(None, "from timm, with weights from a local file of unknown licence.")
    import timm

    config = timm.get_pretrained_cfg(recipe["name"])
    licence = getattr(config, "license", None)
    hub = getattr(config, "hf_hub_id", None)
    text = f"licence of its pretrained weights by timm: `{licence}`." if licence else "timm states no licence for it."
    return Origin(hub if hub and "/" in hub else None, text)
