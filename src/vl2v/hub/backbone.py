"""Origin and licence of a student's pretrained weights, as far as they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """A backbone's.

    Attributes:
        hub_name: its name on the hub; None if it is not known.
        text: what a card says of it, after its name.
    """

    hub_name: str | None
    text: str


def origin_of(recipe: Mapping[str, Any], spec: str) -> Origin:
    """Where the weights came from.

    Args:
        recipe: the fields of `vl2v.student.backbones.Recipe`.
        spec: the student's spelling in the run's settings, redacted; the teacher's if the student is its encoder.
    """
    if recipe["kind"] == "open_clip":
        name = str(recipe["name"])  # of earlier versions; later ones name the built-in architecture
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
    said = f"licence of its pretrained weights by timm: `{licence}`." if licence else "timm states no licence for it."
    return Origin(hub if hub and "/" in hub else None, said)
