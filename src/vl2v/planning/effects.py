"""Settings that have no effect on a run."""

from __future__ import annotations

from vl2v.config import RunConfig
from vl2v.method.registry import METHODS
from vl2v.recipes import RECIPES


def without_effect(config: RunConfig) -> list[str]:
    """Return warnings of settings that the method does not use. In a grid, they may be for other methods."""
    method, found = METHODS[config.method], []
    chosen = (RECIPES.get(config.recipe) or {}).get("distill", {}).get("freeze", 0)
    if config.distill.freeze not in (0, chosen) and not method.trains_backbone:
        found.append("distill.freeze (--freeze)")
    if config.teacher.views != 1 and not method.queries_teacher:
        found.append("teacher.views (--views)")
    default = RunConfig.model_fields["image_weight"].default
    uses_weight = method.free_image_weight or method.image_weight is not None or bool(config.data.classes)
    if config.image_weight != default and not uses_weight:
        found.append("image_weight (--image-weight)")
    warnings = [f"{key} has no effect on the method {method.name}" for key in found]
    if config.when_short == "choose" and config.budget is None:
        warnings.append("when_short choose (--when-short) has no effect without a budget (--budget)")
    return warnings
